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

BC_DEVICE u64 load_relaxed_system(const u64* word) {
#if !defined(__CUDA_ARCH__)
  return __atomic_load_n(word, __ATOMIC_RELAXED);
#else
  u64 value;
#if __CUDA_ARCH__ >= 700
  asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
#else
  asm volatile("ld.volatile.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
#endif
  return value;
#endif
}

BC_DEVICE u32 load_relaxed_system(const u32* word) {
#if !defined(__CUDA_ARCH__)
  return __atomic_load_n(word, __ATOMIC_RELAXED);
#else
  u32 value;
#if __CUDA_ARCH__ >= 700
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
#else
  asm volatile("ld.volatile.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
#endif
  return value;
#endif
}

BC_DEVICE void store_relaxed_system(u32* word, u32 value) {
#if !defined(__CUDA_ARCH__)
  __atomic_store_n(word, value, __ATOMIC_RELAXED);
#elif __CUDA_ARCH__ >= 700
  asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
#else
  asm volatile("st.volatile.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
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
