#include "board.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

namespace blinkcoll {

bool Boards::assemble(u64 timeout_ns, Caller& caller) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  Clock::time_point asked = begin;
  caller.takes_long();
  for (u32 looks = 0;; looks++) {
    if (must_leave() || anyone_differs()) return false;
    bool all = true;
    for (u32 r = 0; r < nranks_ && all; r++) {
      const u64 theirs = word(r, number_);
      // Who is so far ahead that its word is gone has come; who has only announced the call may yet make another of it.
      all = theirs ? theirs >> 22 != kUnknownCount : __atomic_load_n(&board(r).begun, __ATOMIC_ACQUIRE) > number_;
    }
    if (all) return true;
    if (looks < 64) {
      std::this_thread::yield();
      continue;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    const Clock::time_point now = Clock::now();
    if (now - asked > std::chrono::milliseconds(100)) {
      asked = now;
      if (caller.interrupted()) return false;
    }
    if (u64(std::chrono::nanoseconds(now - begin).count()) > timeout_ns) return false;
  }
}

bool Boards::anyone_differs() {
  for (u32 r = 0; r < nranks_; r++) {
    if (r == rank_) continue;
    const u64 begun = __atomic_load_n(&board(r).begun, __ATOMIC_ACQUIRE), last = std::min(number_, begun);
    u64& i = compared_[r];
    if (i + kWords <= number_) i = number_ - kWords + 1;  // what is older is gone here, too
    for (; i <= last; i++) {
      const u64 theirs = word(r, i);
      if (theirs && !same_call(theirs, mine().words[i % kWords])) return leave(Verdict::kDiffers, r, i);
      if (i == number_ || (theirs && theirs >> 22 == kUnknownCount)) break;  // more may become known of it
    }
  }
  return false;
}

void Boards::fail(u32 kind, u64 call, const char* why, u64 length) {
  Board& b = mine();
  if (!__atomic_load_n(&b.failed, __ATOMIC_ACQUIRE)) {
    length = std::min<u64>(length, sizeof b.why - 1);
    std::memcpy(b.why, why, length);
    b.why[length] = 0;
    b.failed_call = call;
    __atomic_store_n(&b.failed, kind, __ATOMIC_RELEASE);
  }
  // Release: who acquires `first` reads the reason that was stored before.
  u32 nobody = 0;
  __atomic_compare_exchange_n(&header().first, &nobody, rank_ + 1, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
  alarm();
}

}  // namespace blinkcoll
