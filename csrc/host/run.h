// Running a rank's channels on the calling thread.
#pragma once

#include <vector>

#include "blinkcoll/launch.h"

namespace blinkcoll {

// Runs all channels of `launch.rank` to their end, taking turns. False where a wait outlasted launch.timeout_ns without
// any progress of this rank, or the rank's abort word was set; the channels' records then say what they waited for.
bool run_rank(const Launch& launch);

// Every rank on a thread of its own; returns when all have ended. Element i: whether rank i ran to its end.
std::vector<bool> run_threads(const std::vector<Launch>& launches);

}  // namespace blinkcoll
