// Data movers of a thread block: 16 bytes a thread and access where every address allows it; else single
// elements of a reduction, single bytes of a copy.
//
// All accesses are weak: the order around them is made by the barrier and the flag (dispatch.h). Slots are read with
// plain loads, never through the read-only path, because other GPUs write them while the kernel runs.
#pragma once

#include "blinkcoll/arithmetic.h"
#include "cuda/memory.h"

namespace blinkcoll {

struct alignas(16) Vector {
  u32 v[4];
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

// One 16-byte vector as elements.
template <class T>
union Lanes {
  Vector vector;
  T element[sizeof(Vector) / sizeof(T)];
};

// kSrcs, kDsts: numbers known when compiling keep the addresses in registers; 0: taken from the arguments.
template <u32 kType, u32 kOp, u32 kSrcs, u32 kDsts>
struct Reduction {
  using Stored = typename Element<kType>::Stored;
  static constexpr u64 kLanes = sizeof(Vector) / sizeof(Stored);
  static constexpr u32 kMost = kSrcs ? kSrcs : 1;

  BC_DEVICE static void run(char* const* dsts, u32 ndsts, char* const* srcs, u32 nsrcs, u64 count, const Scaling& scaling, u32 lane, u32 lanes) {
    u64 vectors = kSrcs && aligned16(dsts, ndsts) && aligned16(srcs, nsrcs) ? count / kLanes : 0;
    for (u64 i = lane; i < vectors; i += lanes) one_vector(dsts, srcs, i, scaling);
    for (u64 i = vectors * kLanes + lane; i < count; i += lanes) one_element(dsts, ndsts, srcs, nsrcs, i, scaling);
  }

  BC_DEVICE static void one_element(char* const* dsts, u32 ndsts, char* const* srcs, u32 nsrcs, u64 i, const Scaling& scaling) {
    const u32 n = kSrcs ? kSrcs : nsrcs, m = kDsts ? kDsts : ndsts;
    const Stored result = combined<kType, kOp>([&](u32 s) { return reinterpret_cast<const Stored*>(srcs[s])[i]; }, n, scaling);
    for (u32 d = 0; d < m; d++) reinterpret_cast<Stored*>(dsts[d])[i] = result;
  }

  BC_DEVICE static void one_vector(char* const* dsts, char* const* srcs, u64 i, const Scaling& scaling) {
    Lanes<Stored> in[kMost], out;
    for (u32 s = 0; s < kMost; s++) in[s].vector = reinterpret_cast<const Vector*>(srcs[s])[i];
    for (u32 k = 0; k < kLanes; k++) out.element[k] = combined<kType, kOp>([&](u32 s) { return in[s].element[k]; }, kMost, scaling);
    for (u32 d = 0; d < kDsts; d++) reinterpret_cast<Vector*>(dsts[d])[i] = out.vector;
  }
};

// The shapes that trees and rings are made of, by vectors where addresses allow; everything else element by element.
template <u32 kType, u32 kOp>
BC_DEVICE void reduce_any(char* const* dsts, u32 ndsts, char* const* srcs, u32 nsrcs, u64 count, const Scaling& scaling, u32 lane, u32 lanes) {
  if (nsrcs == 2 && ndsts == 1) return Reduction<kType, kOp, 2, 1>::run(dsts, ndsts, srcs, nsrcs, count, scaling, lane, lanes);
  if (nsrcs == 2 && ndsts == 2) return Reduction<kType, kOp, 2, 2>::run(dsts, ndsts, srcs, nsrcs, count, scaling, lane, lanes);
  if (nsrcs == 3 && ndsts == 1) return Reduction<kType, kOp, 3, 1>::run(dsts, ndsts, srcs, nsrcs, count, scaling, lane, lanes);
  if (nsrcs == 3 && ndsts == 3) return Reduction<kType, kOp, 3, 3>::run(dsts, ndsts, srcs, nsrcs, count, scaling, lane, lanes);
  Reduction<kType, kOp, 0, 0>::run(dsts, ndsts, srcs, nsrcs, count, scaling, lane, lanes);
}

}  // namespace blinkcoll
