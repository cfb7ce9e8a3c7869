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

template <class Result, class Waiter>
BC_DEVICE bool move_whole_lines(const LineStep& step, u32 lane, u32 lanes, const Waiter& waiter) {
  const u64 units = units_of(step.nbytes), lines = (units + kWholeLineUnits - 1) / kWholeLineUnits;
#pragma unroll 1
  for (u64 line = lane / kTeam; line < lines; line += lanes / kTeam) {
    Result made[2];
#pragma unroll 1
    for (u32 s = 0; s < step.nsrcs; s++) {
      u64 first, second;
      if (!load_two(step.srcs[s], line, lane, step.nbytes, waiter, &first, &second)) return false;
      made[0].add(first, s, step.scaling);
      made[1].add(second, s, step.scaling);
    }
    const u64 first = made[0].result(step.scaling), second = made[1].result(step.scaling);
#pragma unroll 1
    for (u32 d = 0; d < step.ndsts; d++) store_two(step.dsts[d], line, lane, step.nbytes, first, second);
  }
  sweep_slots(step.dsts, step.ndsts, units, step.slot_bytes / kUnitBytes, lane, lanes);
  return true;
}

// -- the entry --------------------------------------------------------------------------------------------------------

BC_DEVICE bool any_in_whole_lines(const Place* places, u32 n) {
#pragma unroll 1
  for (u32 i = 0; i < n; i++)
    if (places[i].protocol == kLL128) return true;
  return false;
}

template <class Result, class Waiter>
BC_DEVICE bool move_in_lines(const LineStep& step, u32 lane, u32 lanes, const Waiter& waiter) {
  if (any_in_whole_lines(step.srcs, step.nsrcs) || any_in_whole_lines(step.dsts, step.ndsts)) return move_whole_lines<Result>(step, lane, lanes, waiter);
  return move_units<Result>(step, lane, lanes, waiter);
}

// Whether every line of a slot's first `units` units has come; one lane asks, after a wait that failed.
BC_DEVICE bool all_lines_flagged(const Place& slot, u64 units) {
  if (slot.protocol == kLL) return all_units_flagged(slot.at, units, slot.flag);
  for (u64 line = 0; line * kWholeLineUnits < units; line++)
    if (load_relaxed_system(words_at(slot.at, line, kWholeLineUnits)) < slot.flag) return false;
  return true;
}

}  // namespace blinkcoll
