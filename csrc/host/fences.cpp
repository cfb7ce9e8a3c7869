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
constexpr std::chrono::microseconds kPrompt{50};
constexpr std::chrono::milliseconds kMostForAMove{20};
constexpr int kMoves = 10, kMost = 5;

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
  // Return once it is at it.
  void meet() const {
    const u64 seen = turns_.load(std::memory_order_relaxed);
    while (turns_.load(std::memory_order_relaxed) < seen + 2) std::this_thread::yield();
  }
  // Whether it runs on another core than the caller, one of `allowed`.
  bool goes_elsewhere(const cpu_set_t& allowed) {
    for (int move = 0; move < kMoves; move++) {
      const int here = sched_getcpu();
      cpu_set_t other;
      CPU_ZERO(&other);
      for (int core = 0; core < CPU_SETSIZE && CPU_COUNT(&other) == 0; core++)
        if (core != here && CPU_ISSET(core, &allowed)) CPU_SET(core, &other);
      pthread_setaffinity_np(thread_.native_handle(), sizeof other, &other);
      for (const Clock::time_point began = Clock::now(); Clock::now() - began < kMostForAMove; std::this_thread::yield()) {
        const int core = core_.load(std::memory_order_relaxed);
        if (core >= 0 && CPU_ISSET(core, &other) && core != sched_getcpu()) return true;
      }
    }
    return false;
  }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<int> core_{-1};
  std::atomic<u64> turns_{0};
  std::thread thread_;
};

// Most of a few: each may have been interrupted.
bool most_are_prompt() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return false;  // more cores than it holds
  if (CPU_COUNT(&allowed) == 1) return true;  // as far as this rank can tell
  Busy busy;
  if (!busy.goes_elsewhere(allowed)) return false;
  int prompt = 0, slow = 0;
  while (prompt < kMost && slow < kMost) {
    busy.meet();
    const Clock::time_point began = Clock::now();
    if (!fence_everybody()) return false;
    (Clock::now() - began < kPrompt ? prompt : slow)++;
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
