// Ordered loads and stores at system and GPU scope.
//
// sm_70 and newer have acquire and release on the access itself. sm_60 has not: there a volatile access with a fence on
// the right side of it does the same (PTX ISA, memory consistency model: a fence makes the patterns release and
// acquire). Off the device, for the host build of this source, the compiler's builtins stand in.
#pragma once

#include "blinkcoll/types.h"

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define BC_DEVICE __device__ __forceinline__
#else
#define BC_DEVICE inline
#endif

namespace blinkcoll {

// Whether *word has reached target; if so, an acquire. sm_60 pays for its fence once, not at every look in vain.
BC_DEVICE bool reached_acquire_system(const u64* word, u64 target) {
#if !defined(__CUDA_ARCH__)
  return __atomic_load_n(word, __ATOMIC_ACQUIRE) >= target;
#elif __CUDA_ARCH__ >= 700
  u64 value;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
  return value >= target;
#else
  u64 value;
  asm volatile("ld.volatile.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
  if (value < target) return false;
  asm volatile("membar.sys;" ::: "memory");
  return true;
#endif
}

BC_DEVICE void store_release_system(u64* word, u64 value) {
#if !defined(__CUDA_ARCH__)
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
#elif __CUDA_ARCH__ >= 700
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
#else
  asm volatile("membar.sys;" ::: "memory");
  asm volatile("st.volatile.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
#endif
}

// Only blocks of this GPU look: a release at GPU scope is enough, and does not wait for writes over links. On sm_60 the
// block that looks may pass the word's meaning on to another GPU, and membar.gl promises nothing there: membar.sys.
BC_DEVICE void store_release_gpu(u64* word, u64 value) {
#if !defined(__CUDA_ARCH__)
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
#elif __CUDA_ARCH__ >= 700
  asm volatile("st.release.gpu.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
#else
  asm volatile("membar.sys;" ::: "memory");
  asm volatile("st.volatile.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
#endif
}

// Relaxed at system scope, one pair a size: for words that say nothing about other memory, and for the units of plain
// memory beside lines (cuda/lines.h).
#if !defined(__CUDA_ARCH__)
#define BC_RELAXED(Word, Register, constraint, type)                                                                       \
  BC_DEVICE Word load_relaxed_system(const Word* word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }                 \
  BC_DEVICE void store_relaxed_system(Word* word, Word value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }
#else
#if __CUDA_ARCH__ >= 700
#define BC_STRENGTH "relaxed.sys"
#else
#define BC_STRENGTH "volatile"
#endif
#define BC_RELAXED(Word, Register, constraint, type)                                                                       \
  BC_DEVICE Word load_relaxed_system(const Word* word) {                                                                   \
    Register value;                                                                                                        \
    asm volatile("ld." BC_STRENGTH ".global." type " %0, [%1];" : "=" constraint(value) : "l"(word) : "memory");           \
    return Word(value);                                                                                                    \
  }                                                                                                                        \
  BC_DEVICE void store_relaxed_system(Word* word, Word value) {                                                            \
    asm volatile("st." BC_STRENGTH ".global." type " [%0], %1;" ::"l"(word), constraint(Register(value)) : "memory");      \
  }
#endif
BC_RELAXED(u64, u64, "l", "u64")
BC_RELAXED(u32, u32, "r", "u32")
BC_RELAXED(u8, u32, "r", "u8")
#undef BC_RELAXED

// Two lines of a slot (blinkcoll/protocol.h): relaxed, because a line's flag and data come by one access of 64 bits and
// nothing else is read on the strength of them; system scope, because another GPU is at the other end. The halves of such a
// pair may come one after the other, in any order.
BC_DEVICE void load_lines(const u64* at, u64* first, u64* second) {
#if !defined(__CUDA_ARCH__)
  *first = __atomic_load_n(at, __ATOMIC_RELAXED);
  *second = __atomic_load_n(at + 1, __ATOMIC_RELAXED);
#else
  asm volatile("ld." BC_STRENGTH ".global.v2.b64 {%0, %1}, [%2];" : "=l"(*first), "=l"(*second) : "l"(at) : "memory");
#endif
}

BC_DEVICE void store_lines(u64* at, u64 first, u64 second) {
#if !defined(__CUDA_ARCH__)
  __atomic_store_n(at, first, __ATOMIC_RELAXED);
  __atomic_store_n(at + 1, second, __ATOMIC_RELAXED);
#else
  asm volatile("st." BC_STRENGTH ".global.v2.b64 [%0], {%1, %2};" ::"l"(at), "l"(first), "l"(second) : "memory");
#endif
}

// Between two looks at a word. A GPU runs the block it waits for anyway; host threads have to let each other run.
BC_DEVICE void relax() {
#if !defined(__CUDA_ARCH__)
  host_relax();
#endif
}

// Nanoseconds of a clock that all blocks of a GPU share.
BC_DEVICE u64 now_ns() {
#if !defined(__CUDA_ARCH__)
  return host_now_ns();
#else
  u64 value;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(value));
  return value;
#endif
}

}  // namespace blinkcoll
