// A bound on how long a packing may take, looked at in every flow: whoever asks for a plan gets it or an error.
#pragma once

#include <chrono>
#include <stdexcept>

namespace blinkcoll::packing {

struct TimeLimitReached : std::runtime_error {
  TimeLimitReached() : std::runtime_error("the time limit of the packing was reached") {}
};

// Of the calling thread; the far future: none.
inline thread_local std::chrono::steady_clock::time_point time_limit = std::chrono::steady_clock::time_point::max();

inline void set_time_limit(double seconds) {
  using Clock = std::chrono::steady_clock;
  time_limit = seconds > 0 ? Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds)) : Clock::time_point::max();
}

inline void check_time_limit() {
  if (std::chrono::steady_clock::now() > time_limit) throw TimeLimitReached();
}

}  // namespace blinkcoll::packing
