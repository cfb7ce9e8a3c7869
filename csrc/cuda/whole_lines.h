// Movers of a thread block for steps that touch slots in lines of 128 bytes (LL128, blinkcoll/protocol.h), and the entry to
// all movers of lines.
//
// Eight neighbouring lanes, a team, take a line: two words each, the last one's second word being the flag. The number of
// lanes is a multiple of eight. With BC_WHOLE_LINES a team's store arrives whole, and its load takes a line whole: who sees
// the flag has the data. Without, the flag's store is a release after the team has met, and its load an acquire before the
// team meets again, which is the simple protocol line by line.
#pragma once

#include "cuda/lines.h"

#ifndef BC_WHOLE_LINES
#define BC_WHOLE_LINES 0
#endif

namespace blinkcoll {

constexpr u32 kTeam = 8;

// Whether it is true for all of the team, which meets here: what its lanes did before is ordered before what they do after.
BC_DEVICE bool team_all(u32 lane, bool mine) {
#if !defined(__CUDA_ARCH__)
  return host_team_all(mine);
#else
  const u32 mask = 0xffu << (lane % 32 / kTeam * kTeam);
  const bool all = __all_sync(mask, mine);
  __syncwarp(mask);  // a vote orders no memory
  return all;
#endif
}

BC_DEVICE u64* words_at(char* slot, u64 line, u32 word) { return reinterpret_cast<u64*>(slot + line * kWholeLineBytes) + word; }

// The lane's two words of a line; in the last lane's the second is the flag.
BC_DEVICE void store_whole_line(char* slot, u64 line, u32 lane, u64 flag, u64 first, u64 second) {
  const u32 word = lane % kTeam * 2;
  u64* at = words_at(slot, line, word);
  const bool last = word == kTeam * 2 - 2;
#if BC_WHOLE_LINES
  team_all(lane, true);  // together: one store of the warp for the whole line
  store_lines(at, first, last ? flag : second);
#else
  at[0] = first;
  if (!last) at[1] = second;
  team_all(lane, true);
  if (last) store_release_system(at + 1, flag);
#endif
}

// Whether the line has come, the same answer for all of the team, and the lane's two words if so.
BC_DEVICE bool look_at_whole_line(char* slot, u64 line, u32 lane, u64 flag, u64* first, u64* second) {
  const u32 word = lane % kTeam * 2;
  u64* at = words_at(slot, line, word);
  const bool last = word == kTeam * 2 - 2;
#if BC_WHOLE_LINES
  load_lines(at, first, second);
  return team_all(lane, !last || *second == flag);
#else
  // Flags only grow: at least this one means this one, since the slot's next chunk waits for this to be taken.
  if (!team_all(lane, !last || reached_acquire_system(at + 1, flag))) return false;
  *first = at[0];
  if (!last) *second = at[1];
  return true;
#endif
}

// What a lane takes from a source for its two words; the same answer for all of the team, which waits together.
template <class Waiter>
BC_DEVICE bool load_two(const Place& src, u64 line, u32 lane, u64 nbytes, const Waiter& waiter, u64* first, u64* second) {
  *first = *second = 0;
  if (src.protocol == kLL128) {
    return waiter.wait_together([&] { return look_at_whole_line(src.at, line, lane, src.flag, first, second); }, [=](bool mine) { return team_all(lane, mine); });
  }
  const u64 unit = line * kWholeLineUnits + lane % kTeam * 2, units = units_of(nbytes);
  bool came = true;
  if (unit < units) came = load_unit(src, unit, held_of(unit, nbytes), waiter, first);
  if (came && lane % kTeam != kTeam - 1 && unit + 1 < units) came = load_unit(src, unit + 1, held_of(unit + 1, nbytes), waiter, second);
  return team_all(lane, came);
}

BC_DEVICE void store_two(const Place& dst, u64 line, u32 lane, u64 nbytes, u64 first, u64 second) {
  if (dst.protocol == kLL128) return store_whole_line(dst.at, line, lane, dst.flag, first, second);
  const u64 unit = line * kWholeLineUnits + lane % kTeam * 2, units = units_of(nbytes);
  if (unit < units) store_unit(dst, unit, held_of(unit, nbytes), first);
  if (lane % kTeam != kTeam - 1 && unit + 1 < units) store_unit(dst, unit + 1, held_of(unit + 1, nbytes), second);
}

template <u32 kSrcs, class Combine, class Waiter>
BC_DEVICE bool move_whole_lines(const Place* dsts, u32 ndsts, const Place* srcs, u32 nsrcs, u64 nbytes, u64 slot_bytes, u32 lane, u32 lanes, const Combine& combine, const Waiter& waiter) {
  u64 first[kSrcs ? kSrcs : kMostOperands], second[kSrcs ? kSrcs : kMostOperands];
  const u32 n = kSrcs ? kSrcs : nsrcs;
  const u64 units = units_of(nbytes), lines = (units + kWholeLineUnits - 1) / kWholeLineUnits;
  for (u64 line = lane / kTeam; line < lines; line += lanes / kTeam) {
    for (u32 s = 0; s < n; s++) {
      if (!load_two(srcs[s], line, lane, nbytes, waiter, &first[s], &second[s])) return false;
    }
    const u64 a = combine(first), b = combine(second);
    for (u32 d = 0; d < ndsts; d++) store_two(dsts[d], line, lane, nbytes, a, b);
  }
  sweep_slots(dsts, ndsts, units, slot_bytes / kUnitBytes, lane, lanes);
  return true;
}

// -- the entry --------------------------------------------------------------------------------------------------------

BC_DEVICE bool any_in_whole_lines(const Place* places, u32 n) {
  for (u32 i = 0; i < n; i++)
    if (places[i].protocol == kLL128) return true;
  return false;
}

template <u32 kSrcs, class Combine, class Waiter>
BC_DEVICE bool move_any(const Place* dsts, u32 ndsts, const Place* srcs, u32 nsrcs, u64 nbytes, u64 slot_bytes, u32 lane, u32 lanes, const Combine& combine, const Waiter& waiter) {
  if (any_in_whole_lines(srcs, nsrcs) || any_in_whole_lines(dsts, ndsts))
    return move_whole_lines<kSrcs>(dsts, ndsts, srcs, nsrcs, nbytes, slot_bytes, lane, lanes, combine, waiter);
  return move_units<kSrcs>(dsts, ndsts, srcs, nsrcs, nbytes, slot_bytes, lane, lanes, combine, waiter);
}

template <class Waiter>
BC_DEVICE bool copy_units(const Place* dsts, u32 ndsts, const Place& src, u64 nbytes, u64 slot_bytes, u32 lane, u32 lanes, const Waiter& waiter) {
  return move_any<1>(dsts, ndsts, &src, 1, nbytes, slot_bytes, lane, lanes, [](const u64* in) { return in[0]; }, waiter);
}

template <u32 kType, u32 kOp, u32 kSrcs, class Waiter>
BC_DEVICE bool reduce_units_of(const Place* dsts, u32 ndsts, const Place* srcs, u32 nsrcs, u64 count, const Scaling& scaling, u64 slot_bytes, u32 lane, u32 lanes, const Waiter& waiter) {
  using Stored = typename Element<kType>::Stored;
  auto combine = [&](const u64* in) {
    Unit<Stored> out;
    for (u32 k = 0; k < kUnitBytes / sizeof(Stored); k++) {
      out.part[k] = combined<kType, kOp>([&](u32 s) { return Unit<Stored>{in[s]}.part[k]; }, kSrcs ? kSrcs : nsrcs, scaling);
    }
    return out.payload;
  };
  return move_any<kSrcs>(dsts, ndsts, srcs, nsrcs, count * sizeof(Stored), slot_bytes, lane, lanes, combine, waiter);
}

template <u32 kType, u32 kOp, class Waiter>
BC_DEVICE bool reduce_units(const Place* dsts, u32 ndsts, const Place* srcs, u32 nsrcs, u64 count, const Scaling& scaling, u64 slot_bytes, u32 lane, u32 lanes, const Waiter& waiter) {
  if (nsrcs == 2) return reduce_units_of<kType, kOp, 2>(dsts, ndsts, srcs, nsrcs, count, scaling, slot_bytes, lane, lanes, waiter);
  if (nsrcs == 3) return reduce_units_of<kType, kOp, 3>(dsts, ndsts, srcs, nsrcs, count, scaling, slot_bytes, lane, lanes, waiter);
  return reduce_units_of<kType, kOp, 0>(dsts, ndsts, srcs, nsrcs, count, scaling, slot_bytes, lane, lanes, waiter);
}

// Whether every line of a slot's first `units` units has come; one lane asks, after a wait that failed.
BC_DEVICE bool all_lines_flagged(const Place& slot, u64 units) {
  if (slot.protocol == kLL) return all_units_flagged(slot.at, units, slot.flag);
  for (u64 line = 0; line * kWholeLineUnits < units; line++)
    if (load_relaxed_system(words_at(slot.at, line, kWholeLineUnits)) < slot.flag) return false;
  return true;
}

}  // namespace blinkcoll
