#include "fences.h"

#include <atomic>
#include <chrono>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

#include "blinkcoll/types.h"

namespace blinkcoll {

#if defined(__linux__)
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::microseconds kPrompt{50};  // between the one or two that an interrupt takes, and the 2,600 of fences.h
constexpr std::chrono::milliseconds kMostInAll{200};
constexpr int kMost = 5;

// A thread of this process that is never off its core, for as long as this lives.
class Busy {
 public:
  Busy() : thread_([this] {
    while (!stop_.load(std::memory_order_relaxed)) {
      core_.store(sched_getcpu(), std::memory_order_relaxed);
      turns_.fetch_add(1, std::memory_order_relaxed);
    }
  }) {}
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;
  ~Busy() {
    stop_.store(true, std::memory_order_relaxed);
    thread_.join();
  }
  // Grows while it is at it.
  u64 turns() const { return turns_.load(std::memory_order_relaxed); }

  // Let it run on any core but the caller's, also where that is bound to it: a moment of any other's that this process may have. False
  // where there is none, or that is refused.
  bool leave_this_core() {
    const int here = sched_getcpu();
    cpu_set_t others;
    CPU_ZERO(&others);
    for (int core = 0; core < CPU_SETSIZE; core++)
      if (core != here) CPU_SET(core, &others);
    return pthread_setaffinity_np(thread_.native_handle(), sizeof others, &others) == 0;
  }
  bool elsewhere() const {
    const int core = core_.load(std::memory_order_relaxed);
    return core >= 0 && core != sched_getcpu();
  }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<int> core_{-1};
  std::atomic<u64> turns_{0};
  std::thread thread_;
};

// Most of a few: each may have been interrupted.
bool most_are_prompt() {
  Busy busy;
  if (!busy.leave_this_core()) return false;
  int prompt = 0, slow = 0;
  for (const Clock::time_point first = Clock::now(); prompt < kMost && slow < kMost;) {
    const u64 turns = busy.turns();
    while (busy.turns() == turns && Clock::now() - first < kMostInAll) std::this_thread::yield();
    const Clock::time_point began = Clock::now();
    if (began - first >= kMostInAll) return false;
    if (!busy.elsewhere()) {
      busy.leave_this_core();
      continue;
    }
    const u64 met = busy.turns();
    if (!fence_everybody()) return false;
    const Clock::duration took = Clock::now() - began;
    if (busy.turns() == met) continue;  // it was off its core meanwhile
    (took < kPrompt ? prompt : slow)++;
  }
  return prompt == kMost;
}

}  // namespace

bool fences_are_prompt() {
  try {
    static const bool prompt = most_are_prompt();
    return prompt;
  } catch (const std::system_error&) {  // no thread may be started: nothing is known
    return false;
  }
}
#else
bool fences_are_prompt() { return false; }
#endif

}  // namespace blinkcoll
