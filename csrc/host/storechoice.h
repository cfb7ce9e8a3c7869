// How chunks are stored for other ranks to read: through the caches, or past them where that has lately been much faster.
//
// A slot's lines are in the cache of the peer that read them last, and a store through the cache first takes each back. Where
// both cores share a last-level cache that costs little; where they do not, each trip is long, and stores past the caches may be the
// quicker way, for then all of it goes by memory, where writer and reader come as fast (copies of 64 MiB: 1.3 times as fast;
// with ordinary stores, one at a time, ten times; the C library copies with `rep movsb`, which does not read what it overwrites).
// Which it is depends on where the ranks run, and may change while they do; so each way is timed, and the one
// that is not used is tried now and then. What is stored is the same.
#pragma once

#include <chrono>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "blinkcoll/types.h"

namespace blinkcoll {

class StoreChoice {
 public:
  // Smaller pieces go through the caches: they would not be worth the clock.
  static constexpr u64 kLeast = 8 << 10;

  // How much of a piece is stored the other way to see what that costs: more than waits in a core's buffers, and little where it
  // takes ten times as long.
  static constexpr u64 kTried = 16 << 10;
  // Whether the next piece begins with so much.
  bool tries() { return ++pieces_ % kTryEvery == 0; }

  // Whether stores past the caches have lately been the better way. A piece stored past them seems quicker than it is: it is out of
  // the writer's way before it is in memory. So it has to be much faster, unless memory is where all of it comes from and goes (`bulk`).
  bool past(bool bulk) const { return (bulk ? 1.15 : 3) * cost_[1] < cost_[0]; }

  // A piece took that long. One that was interrupted must not count for much, so at most four times the cost so far is believed.
  void learn(bool streamed, u64 ticks, u64 nbytes) {
    double& cost = cost_[streamed];
    const double seen = double(ticks) / double(nbytes);
    cost = (cost + (cost != 0 && seen > 4 * cost ? 4 * cost : seen)) / (cost == 0 ? 1 : 2);
  }

  static u64 ticks() {
#if defined(__x86_64__)
    return __rdtsc();
#else
    return u64(std::chrono::steady_clock::now().time_since_epoch().count());
#endif
  }

 private:
  static constexpr u32 kTryEvery = 64;
  double cost_[2] = {0, 0};  // ticks a byte; 0: not known yet, and so tried
  u32 pieces_ = 0;
};

}  // namespace blinkcoll
