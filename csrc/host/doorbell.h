// Sleeping until another rank, maybe of another process, has raised a counter: futexes, without a lost wake-up.
//
// The reader sets the line's mark, looks at the counter once more, and sleeps on its doorbell. The writer raises the
// counter, then looks at the mark. All four are sequentially consistent, so one of the two sees the other (Dekker): either
// the reader finds the counter raised, or the writer finds the mark and rings. A doorbell counts rings, so a ring between
// the reader's last look and its sleep is not lost either.
//
// Where all ranks can (fences.h), the reader does the writer's share of that: between its marks and its last look it fences
// everybody. A writer whose look at the mark came before that fence has raised the counter before it, too, and the reader's
// look finds it; one that looks later finds the mark. The writer's store and look then are in program order only, which no
// compiler may change and a CPU may not across the fence. Its store is a release, as data needs it.
#pragma once

#include <chrono>
#include <climits>
#include <thread>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#endif

#include "blinkcoll/launch.h"
#include "host/fences.h"

namespace blinkcoll {

// Sleep until `*bell` is no longer `seen`, somebody rings, or the time is over; it may also end for no reason.
inline void sleep_on(const u32* bell, u32 seen, std::chrono::nanoseconds most) {
#if defined(__linux__)
  timespec left{time_t(most.count() / 1000000000), long(most.count() % 1000000000)};
  syscall(SYS_futex, bell, FUTEX_WAIT, seen, &left, nullptr, 0);
#else
  (void)bell, (void)seen;
  std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(most, std::chrono::microseconds(50)));
#endif
}

// The reader's side: ask to be woken when the counter is raised, and look at it again after this. False where nobody rings.
inline bool mark(const u64* counter) {
  CounterLine* line = reinterpret_cast<CounterLine*>(const_cast<u64*>(counter));
  if (line->doorbell == 0) return false;
  __atomic_store_n(&line->waited, 1, __ATOMIC_SEQ_CST);
  return true;
}

// How a reader goes to sleep: after a round of looks that marks whatever it waits for and, where ranks have joined the fences,
// a fence for everybody and one more round of looks.
class Bedtime {
 public:
  // `bell` null: it never sleeps on one.
  Bedtime(const u32* bell, bool fences) : bell_(bell), fences_(fences) {}

  // Before a round. `tired`: if it brings nothing, sleep is next. True where what is looked at in vain is to be marked.
  bool begin_round(bool tired) {
    // Before the round that marks, not the one behind the fence: a ring after that look ends the sleep at once.
    if (!fenced_ && bell_) rings_ = __atomic_load_n(bell_, __ATOMIC_ACQUIRE);
    return tired && !fenced_;
  }
  // After a round that brought nothing to one that is tired; `woken`: all that it marked will ring. False: one more round.
  bool may_sleep(bool woken) {
    if (woken && fences_ && !fenced_) {
      fenced_ = true;
      failed_ = !fence_everybody();
      return false;
    }
    fenced_ = false;
    return true;
  }
  // After a round that brought something.
  void stay_up() { fenced_ = false; }

  // Whether a ring is sure to end the sleep; if not, it has to be a short one.
  bool safe() const { return bell_ && !failed_; }
  u32 rings() const { return rings_; }

 private:
  const u32* bell_;
  bool fences_, fenced_ = false, failed_ = false;
  u32 rings_ = 0;
};

inline void ring(u32* bell) {
  __atomic_fetch_add(bell, 1, __ATOMIC_RELEASE);
#if defined(__linux__)
  syscall(SYS_futex, bell, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
#endif
}

// The writer's side: raise the counter, and wake who sleeps on it. `fenced`: sleepers fence everybody.
inline void raise(u64* counter, u64 value, bool fenced) {
  CounterLine* line = reinterpret_cast<CounterLine*>(counter);
  if (fenced) {
    __atomic_store_n(&line->value, value, __ATOMIC_RELEASE);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&line->waited, __ATOMIC_RELAXED) == 0) return;
  } else {
    __atomic_store_n(&line->value, value, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&line->waited, __ATOMIC_SEQ_CST) == 0) return;
  }
  if (__atomic_exchange_n(&line->waited, 0, __ATOMIC_SEQ_CST)) ring(reinterpret_cast<u32*>(reinterpret_cast<char*>(line) + line->doorbell));
}

}  // namespace blinkcoll
