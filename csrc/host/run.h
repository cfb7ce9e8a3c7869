// Running a rank's channels on the calling thread.
#pragma once

#include <functional>
#include <vector>

#include "blinkcoll/launch.h"
#include "host/platform.h"

namespace blinkcoll {

// Runs all channels of `launch.rank` to their end, taking turns. False where a wait outlasted launch.timeout_ns without
// any progress of this rank, or the rank's abort word was set; the channels' records then say what they waited for.
bool run_rank(const Launch& launch);

// The same for a launch that check_launch() has been asked about: its program, rank, dtype and operation. It leaves where
// `around.caller`, if there is one, says that it is interrupted. Before it sleeps it shows `around.watch`, if there is one,
// what it waits for, and leaves where that says so.
bool run_checked(const Launch& launch, const Around& around = {});

// Throws std::invalid_argument where the launch's program is none of this version, lacks the rank, or cannot be reduced.
void check_launch(const Launch& launch);

// Every rank on a thread of its own; returns when all have ended. Element i: whether rank i ran to its end. Ten times a
// second the calling thread asks `interrupted`; if so, all ranks are told to leave. Throws what a rank's thread threw,
// or std::system_error where there was no thread to be had, after all others have ended.
std::vector<bool> run_threads(const std::vector<Launch>& launches, const std::function<bool()>& interrupted = [] { return false; });

}  // namespace blinkcoll
