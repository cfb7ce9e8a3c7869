// Movers of a thread block for steps that touch slots in lines (blinkcoll/protocol.h), LL's: eight bytes of payload at a
// time. Steps that touch LL128's go to whole_lines.h, which shares what is here.
//
// A thread takes a unit from every source, waiting where a source's lines have not come, combines, and stores to every
// destination: plain memory or lines, in any mixture. Units do not wait for each other, so a unit passes through a rank
// as soon as it is there. Loops are not unrolled: what a unit waits for is the link.
//
// Plain memory beside lines is accessed by relaxed loads and stores, too. In place, one block loads a unit of the input,
// and another stores the result there, ordered by nothing but that the result was computed from what was loaded. Weak
// accesses would be a data race; between relaxed ones of the same size there is none, and that the load does not return
// what was made of it is the model's axiom against values out of thin air.
#pragma once

#include "blinkcoll/dispatch.h"
#include "cuda/memory.h"

namespace blinkcoll {

template <class T>
union Unit {
  u64 payload;
  T part[kUnitBytes / sizeof(T)];
};

// The first `held` bytes of a unit in plain memory, by the largest accesses that its address allows; the rest is zero.
// The size of the accesses follows from address and `held` alone, so two steps access one unit alike.
BC_DEVICE u64 load_plain_unit(const char* at, u32 held) {
  const u64 address = reinterpret_cast<u64>(at);
  if (held == kUnitBytes && address % 8 == 0) return load_relaxed_system(reinterpret_cast<const u64*>(at));
  if (held == kUnitBytes && address % 4 == 0) {
    const u32* words = reinterpret_cast<const u32*>(at);
    const u32 low = load_relaxed_system(words);
    return u64(load_relaxed_system(words + 1)) << 32 | low;
  }
  u64 payload = 0;
#pragma unroll 1
  for (u32 i = 0; i < held; i++) payload |= u64(load_relaxed_system(reinterpret_cast<const u8*>(at) + i)) << 8 * i;
  return payload;
}

BC_DEVICE void store_plain_unit(char* at, u32 held, u64 payload) {
  const u64 address = reinterpret_cast<u64>(at);
  if (held == kUnitBytes && address % 8 == 0) {
    store_relaxed_system(reinterpret_cast<u64*>(at), payload);
  } else if (held == kUnitBytes && address % 4 == 0) {
    u32* words = reinterpret_cast<u32*>(at);
    store_relaxed_system(words, u32(payload));
    store_relaxed_system(words + 1, u32(payload >> 32));
  } else {
#pragma unroll 1
    for (u32 i = 0; i < held; i++) store_relaxed_system(reinterpret_cast<u8*>(at) + i, u8(payload >> 8 * i));
  }
}

// How many of nbytes bytes lie in a unit.
BC_DEVICE u32 held_of(u64 unit, u64 nbytes) {
  const u64 begin = unit * kUnitBytes;
  if (begin >= nbytes) return 0;
  return nbytes - begin < kUnitBytes ? u32(nbytes - begin) : kUnitBytes;
}

BC_DEVICE u64* lines_at(char* slot, u64 unit) { return reinterpret_cast<u64*>(slot) + unit * kUnitLines; }

BC_DEVICE void store_line_unit(char* slot, u64 unit, u64 flag, u64 payload) {
  store_lines(lines_at(slot, unit), line_of(u32(payload), flag), line_of(u32(payload >> 32), flag));
}

// Whether both lines have the flag, and their payload if so.
BC_DEVICE bool look_at_unit(char* slot, u64 unit, u64 flag, u64* payload) {
  u64 first, second;
  load_lines(lines_at(slot, unit), &first, &second);
  *payload = u64(u32(first)) | second << 32;
  return u32(first >> 32) == u32(flag) && u32(second >> 32) == u32(flag);
}

template <class Waiter>
BC_DEVICE bool load_unit(const Place& src, u64 unit, u32 held, const Waiter& waiter, u64* payload) {
  if (src.protocol == kSimple) {
    *payload = load_plain_unit(src.at + unit * kUnitBytes, held);
    return true;
  }
  return waiter.wait([&] { return look_at_unit(src.at, unit, src.flag, payload); });
}

BC_DEVICE void store_unit(const Place& dst, u64 unit, u32 held, u64 payload) {
  if (dst.protocol == kSimple) {
    store_plain_unit(dst.at + unit * kUnitBytes, held, payload);
  } else {
    store_line_unit(dst.at, unit, dst.flag, payload);
  }
}

// Lines behind the chunk's end get the chunk's flag, too (blinkcoll/protocol.h, sweeps): nobody reads them. That a later
// chunk's line is not overtaken by these is the barrier's doing: the step ends before the channel stores there again.
BC_DEVICE void sweep_slots(const Place* dsts, u32 ndsts, u64 from, u64 to, u32 lane, u32 lanes) {
#pragma unroll 1
  for (u32 d = 0; d < ndsts; d++) {
    if (!dsts[d].sweep) continue;
#pragma unroll 1
    for (u64 unit = from + lane; unit < to; unit += lanes) store_line_unit(dsts[d].at, unit, dsts[d].flag, 0);
  }
}

// What becomes of a unit: a copy keeps its only source's, a reduction adds the sources up in their order.
struct CopiedUnit {
  u64 payload;
  BC_DEVICE void add(u64 source, u32, const Scaling&) { payload = source; }
  BC_DEVICE u64 result(const Scaling&) const { return payload; }
};

template <u32 kType, u32 kOp>
struct ReducedUnit {
  using Stored = typename Element<kType>::Stored;
  using Value = typename Element<kType>::Value;
  static constexpr u32 kParts = kUnitBytes / sizeof(Stored);
  Value value[kParts];

  BC_DEVICE void add(u64 source, u32 s, const Scaling& scaling) {
    const Unit<Stored> unit{source};
    for (u32 k = 0; k < kParts; k++) {
      const Value next = taken<kType>(unit.part[k], s, scaling);
      value[k] = s == 0 ? next : Combine<kOp, Value>::apply(value[k], next);
    }
  }
  BC_DEVICE u64 result(const Scaling& scaling) const {
    Unit<Stored> unit;
    for (u32 k = 0; k < kParts; k++) unit.part[k] = given<kType>(value[k], scaling);
    return unit.payload;
  }
};

// A step as a mover takes it. `slot_bytes`: the payload that a slot holds.
struct LineStep {
  const Place *dsts, *srcs;
  u32 ndsts, nsrcs;
  u64 nbytes, slot_bytes;
  Scaling scaling;
};

// `waiter.wait(reached)` is the platform's bounded wait. False where some unit did not come in time.
template <class Result, class Waiter>
BC_DEVICE bool move_units(const LineStep& step, u32 lane, u32 lanes, const Waiter& waiter) {
  const u64 units = units_of(step.nbytes);
#pragma unroll 1
  for (u64 unit = lane; unit < units; unit += lanes) {
    const u32 held = held_of(unit, step.nbytes);
    Result made;
#pragma unroll 1
    for (u32 s = 0; s < step.nsrcs; s++) {
      u64 payload;
      if (!load_unit(step.srcs[s], unit, held, waiter, &payload)) return false;
      made.add(payload, s, step.scaling);
    }
    const u64 payload = made.result(step.scaling);
#pragma unroll 1
    for (u32 d = 0; d < step.ndsts; d++) store_unit(step.dsts[d], unit, held, payload);
  }
  sweep_slots(step.dsts, step.ndsts, units, step.slot_bytes / kUnitBytes, lane, lanes);
  return true;
}

BC_DEVICE bool all_units_flagged(char* slot, u64 units, u64 flag) {
  u64 payload;
  for (u64 unit = 0; unit < units; unit++)
    if (!look_at_unit(slot, unit, flag, &payload)) return false;
  return true;
}

}  // namespace blinkcoll
