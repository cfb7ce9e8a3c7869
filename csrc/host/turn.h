// A lock that is given back by a plain store.
//
// A mutex's unlock is an exchange, which on x86 waits until all earlier stores are done, and so until the lines of the counters that a call has
// raised are this core's to write: between cores that share no cache a fifth of a microsecond in each call (gathers of 4 bytes from a rank that is
// ahead: 0.68 us with a mutex, 0.46 so). Who finds it taken cannot be woken by such a store, and looks again from time to time.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

namespace blinkcoll {

class Turn {
 public:
  bool try_lock() { return !taken_.exchange(true, std::memory_order_acquire); }

  void lock() {
    for (std::chrono::microseconds nap(0); !try_lock(); nap = std::min(2 * nap + std::chrono::microseconds(10), kMostNap)) {
      if (nap.count() == 0)
        std::this_thread::yield();
      else
        std::this_thread::sleep_for(nap);
    }
  }

  void unlock() { taken_.store(false, std::memory_order_release); }

 private:
  static constexpr std::chrono::microseconds kMostNap{500};
  std::atomic<bool> taken_{false};
};

}  // namespace blinkcoll
