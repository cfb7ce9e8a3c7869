// How near the peers' caches are: whether a line comes from there sooner than from memory.
//
// Where cores share a last-level cache, chunks are best handed on through it: a line of a peer's comes in a third of the time that
// one from memory takes, and a detour by memory halves the rate (all-reduce of 16 MiB: 0.79 ms, and 1.6 by memory). Where
// they do not, a line of a peer's takes as long as one from memory, and each is asked for twice, to be read and to be written anew;
// chunks stored past the caches make the same trip once (0.89 ms, and 1.06 through the caches). How long one copy takes does not tell,
// for the reader pays as well. Which it is depends on where ranks run, and may change while they do, so it is looked at
// again and again: by loads of counters that peers have just written, in calls that go through slots and where a choice depends on it. What is stored is the same.
#pragma once

#include <algorithm>

#include "blinkcoll/types.h"

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace blinkcoll {

// Of a thread's peers, lately. On other CPUs than x86-64 all are near: there is no clock that a load would not drown in.
class Nearness {
 public:
  bool far() const { return line_ > kAlike * memory_; }

  // Around a load of what a peer has just written; both wait for the loads before them.
  static u64 begin() {
#if defined(__x86_64__)
    return ticks();
#else
    return 0;
#endif
  }
  void end(u64 began) {
#if defined(__x86_64__)
    average(line_, ticks() - began);
    if (learned_++ % kRemember == 0) average(memory_, from_memory());
#else
    (void)began;
#endif
  }

 private:
  static constexpr double kAlike = 0.6;
  static constexpr u32 kRemember = 256;  // lines of peers between two from memory

#if defined(__x86_64__)
  static u64 ticks() {
    _mm_lfence();
    const u64 now = __rdtsc();
    _mm_lfence();
    return now;
  }

  // The soonest of a few: one that was interrupted would count for long.
  static u64 from_memory() {
    alignas(64) static thread_local u64 line[8];
    u64 soonest = ~u64(0);
    for (int i = 0; i < 3; i++) {
      _mm_clflush(line);
      _mm_mfence();
      const u64 began = ticks();
      static_cast<void>(*static_cast<volatile u64*>(line));
      soonest = std::min(soonest, ticks() - began);
    }
    return soonest;
  }

  // A load that was interrupted must not count for much: at most twice what is known is believed.
  static void average(double& known, u64 ticks) {
    const double seen = double(ticks);
    known = known == 0 ? seen : known + ((seen > 2 * known ? 2 * known : seen) - known) / 8;
  }
#endif

  double line_ = 0, memory_ = 0;  // ticks
  u32 learned_ = 0;
};

// Of this thread's peers.
inline Nearness& nearness() {
  thread_local Nearness nearness;
  return nearness;
}

}  // namespace blinkcoll
