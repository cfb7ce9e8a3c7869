// A fence on behalf of all: membarrier(2), with which a rank that goes to sleep spares those that are at work theirs.
//
// A writer that raises a counter and then looks whether anybody sleeps on it needs a full fence between the two (doorbell.h),
// for which it stands still until it owns the counter's line: a trip between cores, in every call. With these, it needs none:
// fence_everybody() returns once every running thread of every process that has called join_fences() has executed a full
// barrier; threads that do not run have executed one when they were taken off their core.
//
// Running threads are interrupted for that, which takes a microsecond or two. Some virtual machines deliver interrupts between cores only
// with the next tick of the clock, milliseconds later (measured on one: 2.6 ms), and whoever goes to sleep would wait for that:
// where it is so, writers fence.
#pragma once

#if defined(__linux__)
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace blinkcoll {

// Whether this process takes part from now on, and may fence; not where the kernel is older than 4.16 or a filter refuses it.
inline bool join_fences() {
#if defined(__linux__) && defined(SYS_membarrier)
  return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
#else
  return false;
#endif
}

inline bool fence_everybody() {
#if defined(BC_WITHOUT_FENCES)
  return true;  // tests see what is lost without
#elif defined(__linux__) && defined(SYS_membarrier)
  return syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0;
#else
  return false;
#endif
}

// Measured once, while another thread of this process's keeps some other core busy, whatever core the caller is bound to; false where nothing can be
// measured, as with one core. Only after join_fences(). Takes less than a millisecond where they are, else until five have been slow (some 15 ms
// on that machine), and 0.2 s at most.
bool fences_are_prompt();

}  // namespace blinkcoll
