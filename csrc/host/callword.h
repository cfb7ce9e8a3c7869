// A call in 64 bits: what all ranks of a communicator must agree on, so that one comparison tells whether they do.
//
//   bits  0-3   collective, CollectiveCode; 0: no call
//   bits  4-7   operation, ReduceOp; kAverage where the sum is divided, kPremultiplied where each rank has a factor
//   bits  8-11  dtype; kOpaque elements, which are only copied, by their size
//   bits 12-21  root + 1; 0: none
//   bits 22-63  elements of the whole collective (bytes where elements of that size have no code); kUnknownCount: not known
//               yet, and operation and dtype neither
//
// blinkcoll/runtime/callword.py says in words what it holds.
#pragma once

#include "blinkcoll/launch.h"

namespace blinkcoll {

enum CollectiveCode : u32 {
  kNoCall = 0, kBarrier, kBroadcast, kReduceTo, kAllReduce, kAllGather, kReduceScatter, kGather, kScatter, kAllToAll, kSendRecv, kAllToAllV,
};

constexpr u32 kAverage = 7, kPremultiplied = 8, kMostRoots = (1u << 10) - 2;
constexpr u64 kUnknownCount = (u64(1) << 42) - 1;

// Numbers behind the last DType for elements that are only copied: 2, 4, 8, 16 bytes. Of 1 byte (and others, by bytes): kOpaque.
constexpr u32 kOpaque2 = kBool + 1;

// Collective and root; the rest of the word is added by each call.
inline u64 call_base(u32 collective, int root) { return u64(collective) | u64(u32(root + 1) <= kMostRoots + 1 ? u32(root + 1) : kMostRoots + 1) << 12; }

inline u64 call_word(u64 base, u32 dtype, u32 elem_size, u32 op, u32 divisor, u64 count) {
  if (dtype == kOpaque) {
    const bool coded = elem_size == 2 || elem_size == 4 || elem_size == 8 || elem_size == 16;
    dtype = !coded ? u32(kOpaque) : kOpaque2 + (elem_size == 2 ? 0 : elem_size == 4 ? 1 : elem_size == 8 ? 2 : 3);
    if (!coded) count *= elem_size;
  }
  return base | u64(divisor != 1 ? kAverage : op) << 4 | u64(dtype) << 8 | (count < kUnknownCount ? count : kUnknownCount - 1) << 22;
}

// A call that is only announced: nobody knows yet how much of what.
inline u64 announced_word(u64 base) { return base | kUnknownCount << 22; }

// Whether two ranks' words may be of one call.
inline bool same_call(u64 a, u64 b) {
  constexpr u64 kBase = 0xf | u64(0x3ff) << 12;
  if (a >> 22 == kUnknownCount || b >> 22 == kUnknownCount) return (a & kBase) == (b & kBase);
  return a == b;
}

}  // namespace blinkcoll
