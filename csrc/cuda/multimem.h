// Steps with operands of all ranks: by multimem instructions where the launch has a mapping (sm_90 and newer), else by
// the memory of each rank, one after the other.
//
// A mapping is an alias of every rank's memory, and what is accessed through it is ordered against accesses through the
// memory's own addresses by a proxy fence on the way (PTX ISA, memory consistency model, proxies). The way from a rank's
// store to the head's multimem.ld_reduce is: store, barrier, release of `tail`; acquire by the head's lane, barrier,
// fence.proxy.alias by every lane that goes on. From the head's multimem.st to a rank's load: fence.proxy.alias by every
// lane that stored, barrier, release; acquire, barrier, load. So heads fence, in both directions, and nobody else has to.
// The instructions themselves are relaxed at system scope: they are made visible by the flag, as all data is.
#pragma once

#include "blinkcoll/dispatch.h"
#include "cuda/memory.h"
#include "cuda/movers.h"

namespace blinkcoll {

BC_DEVICE void fence_alias() {
#if !defined(__CUDA_ARCH__)
  // One address a byte on the host: nothing to order.
#elif __CUDA_ARCH__ >= 700
  asm volatile("fence.proxy.alias;" ::: "memory");
#endif
}

// -- 16 bytes of all ranks, added or stored by the switch -----------------------------------------------------------------

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define BC_MULTIMEM_V4(at, result, instruction)                                                          \
  asm volatile("multimem.ld_reduce.relaxed.sys.global." instruction " {%0, %1, %2, %3}, [%4];"           \
               : "=r"(result.v[0]), "=r"(result.v[1]), "=r"(result.v[2]), "=r"(result.v[3])              \
               : "l"(at)                                                                                 \
               : "memory")
#define BC_MULTIMEM_32(at, result, instruction)                                                                     \
  for (u32 k = 0; k < 4; k++)                                                                                       \
  asm volatile("multimem.ld_reduce.relaxed.sys.global." instruction " %0, [%1];" : "=r"(result.v[k]) : "l"((at) + 4 * k) : "memory")
#define BC_MULTIMEM_64(at, result, instruction)                                                                     \
  for (u32 k = 0; k < 2; k++)                                                                                       \
  asm volatile("{ .reg .b64 t; multimem.ld_reduce.relaxed.sys.global." instruction " t, [%2]; mov.b64 {%0, %1}, t; }" \
               : "=r"(result.v[2 * k]), "=r"(result.v[2 * k + 1])                                                    \
               : "l"((at) + 8 * k)                                                                                   \
               : "memory")

// One instruction a dtype and operation; anything that can_reduce_in_switch() does not know never gets here.
template <u32 kType, u32 kOp>
BC_DEVICE Vector multimem_reduced(u64 at) {
  Vector r{};
  if (kOp == kBand) {
    BC_MULTIMEM_32(at, r, "and.b32");
  } else if (kOp == kBor) {
    BC_MULTIMEM_32(at, r, "or.b32");
  } else if (kOp == kBxor) {
    BC_MULTIMEM_32(at, r, "xor.b32");
  } else if (kType == kFloat32) {
    BC_MULTIMEM_V4(at, r, "add.v4.f32");
  } else if (kType == kFloat64) {
    BC_MULTIMEM_64(at, r, "add.f64");
  } else if (kType == kFloat16) {
    if (kOp == kMin) BC_MULTIMEM_V4(at, r, "min.v4.f16x2");
    else if (kOp == kMax) BC_MULTIMEM_V4(at, r, "max.v4.f16x2");
    else BC_MULTIMEM_V4(at, r, "add.acc::f32.v4.f16x2");
  } else if (kType == kBFloat16) {
    if (kOp == kMin) BC_MULTIMEM_V4(at, r, "min.v4.bf16x2");
    else if (kOp == kMax) BC_MULTIMEM_V4(at, r, "max.v4.bf16x2");
    else BC_MULTIMEM_V4(at, r, "add.acc::f32.v4.bf16x2");
  } else if (kType == kInt32) {
    if (kOp == kMin) BC_MULTIMEM_32(at, r, "min.s32");
    else if (kOp == kMax) BC_MULTIMEM_32(at, r, "max.s32");
    else BC_MULTIMEM_32(at, r, "add.s32");
  } else if (kType == kInt64) {
    if (kOp == kMin) BC_MULTIMEM_64(at, r, "min.s64");
    else if (kOp == kMax) BC_MULTIMEM_64(at, r, "max.s64");
    else BC_MULTIMEM_64(at, r, "add.u64");  // wraps: the same bits as signed
  }
  return r;
}

BC_DEVICE void multimem_store(u64 at, const Vector& value) {
  asm volatile("multimem.st.relaxed.sys.global.v4.f32 [%0], {%1, %2, %3, %4};"
               ::"l"(at), "r"(value.v[0]), "r"(value.v[1]), "r"(value.v[2]), "r"(value.v[3])
               : "memory");
}
constexpr bool kHasMultimem = true;

#elif !defined(__CUDA_ARCH__)
// The host build: the shim knows which address of each rank a mapped one stands for.
template <u32 kType, u32 kOp>
BC_DEVICE Vector multimem_reduced(u64 at) {
  Lanes<typename Element<kType>::Stored> out;
  for (u32 k = 0; k < sizeof(Vector) / sizeof(out.element[0]); k++)
    out.element[k] = combined<kType, kOp>([&](u32 s) { return reinterpret_cast<const typename Element<kType>::Stored*>(host_multimem_peer(at, s))[k]; },
                                          host_multimem_ranks(), Scaling{0, false, 1, 1});
  return out.vector;
}

BC_DEVICE void multimem_store(u64 at, const Vector& value) {
  for (u32 rank = 0; rank < host_multimem_ranks(); rank++) *reinterpret_cast<Vector*>(host_multimem_peer(at, rank)) = value;
}
constexpr bool kHasMultimem = true;

#else
// Before sm_90 there is no such instruction. A launch with a mapping there is the launcher's mistake: it stops the kernel.
template <u32 kType, u32 kOp>
BC_DEVICE Vector multimem_reduced(u64) {
  asm volatile("trap;");
  return Vector{};
}
BC_DEVICE void multimem_store(u64, const Vector&) { asm volatile("trap;"); }
constexpr bool kHasMultimem = false;
#endif

// -- a step ---------------------------------------------------------------------------------------------------------------

// A launch maps all the regions that a step of it touches, or none.
BC_DEVICE bool is_mapped(const GroupStep& g) { return (g.from ? g.from->mapped : g.to->mapped) != 0; }

// Which of some units go by vectors of 16 bytes: `count` vectors from unit `begin` on.
struct Vectors {
  u64 begin, count;
};

// By the mapped addresses alone: what is read and what is written lie at one offset of mappings that begin alike.
BC_DEVICE Vectors vectors_of(const GroupStep& g, u64 total, u32 size) {
  const u64 first = g.from ? g.from->mapped : g.to->mapped;
  const u32 skip = u32(-first & 15);
  const bool alike = !g.from || !g.to || ((g.from->mapped ^ g.to->mapped) & 15) == 0;
  if (!is_mapped(g) || !alike || skip % size != 0 || skip / size >= total) return {total, 0};
  return {skip / size, (total - skip / size) * size / sizeof(Vector)};
}

// Whether a rank's own operands can be accessed by 16 bytes, too, from `bytes` on.
BC_DEVICE bool own_aligned(const GroupStep& g, u64 bytes) {
  u64 bits = 0;
  for (u32 i = 0; i < g.nsrcs; i++) bits |= reinterpret_cast<u64>(g.srcs[i]) + bytes;
  for (u32 i = 0; i < g.ndsts; i++) bits |= reinterpret_cast<u64>(g.dsts[i]) + bytes;
  return (bits & 15) == 0;
}

// One thread's reads in flight: a switch's answer takes a microsecond or two, 16 bytes at a time.
constexpr u32 kInFlight = 4;

template <u32 kType, u32 kOp>
struct GroupMove {
  using Stored = typename Element<kType>::Stored;
  static constexpr u64 kLanes = sizeof(Vector) / sizeof(Stored);

  BC_DEVICE static void run(const GroupStep& g, u32 lane, u32 lanes) {
    const Vectors all = vectors_of(g, g.count, sizeof(Stored));
    const bool aligned = own_aligned(g, all.begin * sizeof(Stored));
    for (u64 v = lane; v < all.count; v += u64(kInFlight) * lanes) {
      Lanes<Stored> in[kInFlight];
      for (u32 u = 0; g.from && u < kInFlight; u++)
        if (v + u * lanes < all.count) in[u].vector = multimem_reduced<kType, kOp>(g.from->mapped + (all.begin + (v + u * lanes) * kLanes) * sizeof(Stored));
      for (u32 u = 0; u < kInFlight; u++)
        if (v + u * lanes < all.count) finish_vector(g, all.begin + (v + u * lanes) * kLanes, in[u], aligned);
    }
    for (u64 i = lane; i < all.begin; i += lanes) one_element(g, i);
    for (u64 i = all.begin + all.count * kLanes + lane; i < g.count; i += lanes) one_element(g, i);
  }

  // By each rank's own memory.
  BC_DEVICE static void one_element(const GroupStep& g, u64 i) {
    const u32 n = g.from ? g.from->nranks : g.nsrcs;
    const Stored result = combined<kType, kOp>([&](u32 s) { return reinterpret_cast<const Stored*>(g.from ? g.from->at(s) : g.srcs[s])[i]; }, n, g.scaling);
    for (u32 d = 0; d < g.ndsts; d++) reinterpret_cast<Stored*>(g.dsts[d])[i] = result;
    for (u32 rank = 0; g.to && rank < g.to->nranks; rank++) reinterpret_cast<Stored*>(g.to->at(rank))[i] = result;
  }

  // `in`: what the switch has added, where it has.
  BC_DEVICE static void finish_vector(const GroupStep& g, u64 i, const Lanes<Stored>& in, bool aligned) {
    Lanes<Stored> out;
    for (u32 k = 0; k < kLanes; k++)
      out.element[k] = combined<kType, kOp>([&](u32 s) { return g.from ? in.element[k] : reinterpret_cast<const Stored*>(g.srcs[s])[i + k]; }, g.from ? 1 : g.nsrcs, g.scaling);
    for (u32 d = 0; d < g.ndsts; d++) {
      Stored* dst = reinterpret_cast<Stored*>(g.dsts[d]) + i;
      if (aligned) *reinterpret_cast<Vector*>(dst) = out.vector;
      for (u32 k = 0; !aligned && k < kLanes; k++) dst[k] = out.element[k];
    }
    if (g.to) multimem_store(g.to->mapped + i * sizeof(Stored), out.vector);
  }
};

// A plain copy to all ranks: bytes.
struct GroupCopy {
  BC_DEVICE static void run(const GroupStep& g, u32 lane, u32 lanes) {
    const Vectors all = vectors_of(g, g.nbytes, 1);
    const bool aligned = own_aligned(g, all.begin);
    for (u64 v = lane; v < all.count; v += lanes) one_vector(g, all.begin + v * sizeof(Vector), aligned);
    for (u64 i = lane; i < all.begin; i += lanes) one_byte(g, i);
    for (u64 i = all.begin + all.count * sizeof(Vector) + lane; i < g.nbytes; i += lanes) one_byte(g, i);
  }

  BC_DEVICE static void one_vector(const GroupStep& g, u64 at, bool aligned) {
    Lanes<char> value;
    if (aligned) value.vector = *reinterpret_cast<const Vector*>(g.srcs[0] + at);
    for (u32 k = 0; !aligned && k < sizeof(Vector); k++) value.element[k] = g.srcs[0][at + k];
    for (u32 d = 0; d < g.ndsts; d++) {
      if (aligned) *reinterpret_cast<Vector*>(g.dsts[d] + at) = value.vector;
      for (u32 k = 0; !aligned && k < sizeof(Vector); k++) g.dsts[d][at + k] = value.element[k];
    }
    multimem_store(g.to->mapped + at, value.vector);
  }

  BC_DEVICE static void one_byte(const GroupStep& g, u64 i) {
    const char value = g.srcs[0][i];
    for (u32 d = 0; d < g.ndsts; d++) g.dsts[d][i] = value;
    for (u32 rank = 0; rank < g.to->nranks; rank++) g.to->at(rank)[i] = value;
  }
};

template <u32 kType, u32 kOp>
BC_DEVICE void move_group_block(const GroupStep& g, u32 lane, u32 lanes) {
  const bool mapped = kHasMultimem && is_mapped(g);
  if (mapped) fence_alias();
  if (g.plain) GroupCopy::run(g, lane, lanes);
  else GroupMove<kType, kOp>::run(g, lane, lanes);
  if (mapped) fence_alias();
}

}  // namespace blinkcoll
