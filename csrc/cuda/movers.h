// Data movers of a thread block: 16 bytes a thread and access where every address allows it; else single
// elements of a reduction, single bytes of a copy.
//
// All accesses are weak: the order around them is made by the barrier and the flag (dispatch.h). Slots are read with
// plain loads, never through the read-only path, because other GPUs write them while the kernel runs.
#pragma once

#include "cuda/memory.h"

namespace blinkcoll {

struct alignas(16) Vector {
  float v[4];
};

BC_DEVICE bool aligned16(char* const* at, u32 n) {
  u64 bits = 0;
  for (u32 i = 0; i < n; i++) bits |= reinterpret_cast<u64>(at[i]);
  return (bits & 15) == 0;
}

// Elements of type T, strided over the block's threads.
template <class T>
BC_DEVICE void copy_as(char* const* dsts, u32 ndsts, const char* src, u64 from, u64 to, u32 lane, u32 lanes) {
  const T* in = reinterpret_cast<const T*>(src);
  for (u64 i = from + lane; i < to; i += lanes) {
    T value = in[i];
    for (u32 d = 0; d < ndsts; d++) reinterpret_cast<T*>(dsts[d])[i] = value;
  }
}

BC_DEVICE void copy_block(char* const* dsts, u32 ndsts, const char* src, u64 nbytes, u32 lane, u32 lanes) {
  char* first = const_cast<char*>(src);
  u64 vectors = aligned16(dsts, ndsts) && aligned16(&first, 1) ? nbytes / sizeof(Vector) : 0;
  copy_as<Vector>(dsts, ndsts, src, 0, vectors, lane, lanes);
  copy_as<char>(dsts, ndsts, src, vectors * sizeof(Vector), nbytes, lane, lanes);
}

BC_DEVICE void add(float& sum, float value) { sum += value; }
BC_DEVICE void add(Vector& sum, const Vector& value) {
  for (u32 k = 0; k < 4; k++) sum.v[k] += value.v[k];
}

// kSrcs, kDsts: numbers known when compiling keep the addresses in registers; 0: taken from the arguments.
template <class T, u32 kSrcs, u32 kDsts>
BC_DEVICE void sum_as(char* const* dsts, u32 ndsts, char* const* srcs, u32 nsrcs, u64 from, u64 to, u32 lane, u32 lanes) {
  const u32 n = kSrcs ? kSrcs : nsrcs, m = kDsts ? kDsts : ndsts;
  for (u64 i = from + lane; i < to; i += lanes) {
    T sum = reinterpret_cast<const T*>(srcs[0])[i];
    for (u32 s = 1; s < n; s++) add(sum, reinterpret_cast<const T*>(srcs[s])[i]);
    for (u32 d = 0; d < m; d++) reinterpret_cast<T*>(dsts[d])[i] = sum;
  }
}

template <u32 kSrcs, u32 kDsts>
BC_DEVICE void sum_block(char* const* dsts, u32 ndsts, char* const* srcs, u32 nsrcs, u64 count, u32 lane, u32 lanes) {
  u64 vectors = aligned16(dsts, ndsts) && aligned16(srcs, nsrcs) ? count / 4 : 0;
  sum_as<Vector, kSrcs, kDsts>(dsts, ndsts, srcs, nsrcs, 0, vectors, lane, lanes);
  sum_as<float, kSrcs, kDsts>(dsts, ndsts, srcs, nsrcs, vectors * 4, count, lane, lanes);
}

// The shapes that trees and rings are made of, and everything else.
BC_DEVICE void sum_any(char* const* dsts, u32 ndsts, char* const* srcs, u32 nsrcs, u64 count, u32 lane, u32 lanes) {
  if (nsrcs == 2 && ndsts == 1) return sum_block<2, 1>(dsts, ndsts, srcs, nsrcs, count, lane, lanes);
  if (nsrcs == 2 && ndsts == 2) return sum_block<2, 2>(dsts, ndsts, srcs, nsrcs, count, lane, lanes);
  if (nsrcs == 3 && ndsts == 1) return sum_block<3, 1>(dsts, ndsts, srcs, nsrcs, count, lane, lanes);
  if (nsrcs == 3 && ndsts == 3) return sum_block<3, 3>(dsts, ndsts, srcs, nsrcs, count, lane, lanes);
  sum_block<0, 0>(dsts, ndsts, srcs, nsrcs, count, lane, lanes);
}

}  // namespace blinkcoll
