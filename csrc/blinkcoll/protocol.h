// How the news that a chunk has arrived travels: by a counter behind the data (simple), or in the data itself (lines).
//
// LL: a slot is made of lines of eight bytes, four of them data and four the chunk's flag, and a line is loaded and stored
// by one access of eight bytes. Such an access is single-copy atomic (PTX ISA, memory consistency model: a vector access is
// a set of accesses of its element's type, so two lines may be stored by one v2.b64), so who sees the flag sees the data,
// without a fence and without a counter. Credit (`head`) is a counter as ever.
//
// LL128: a line is 128 bytes, 120 of them data and the last eight the flag, stored and loaded by eight lanes of a warp at
// once. That such a store arrives whole is no promise of PTX's. NVLink keeps it from Volta on (NCCL enables its protocol of
// that name there and nowhere else: src/graph/tuning.cc). Where nobody vouches for it, a kernel built without it makes the
// flag's store a release and its load an acquire, and is right on any machine (cuda/whole_lines.h).
//
// What a line does not do: order anything else. No release goes with it and no acquire; only what depends on its four
// bytes comes after them. The verifier knows (docs/programs.md, protocols).
#pragma once

#include "types.h"

namespace blinkcoll {

enum Protocol : u32 { kSimple = 0, kLL = 1, kLL128 = 2 };

// Movers of lines take their payload by units: two lines of LL, which one access of 16 bytes moves; a word of LL128.
constexpr u32 kUnitBytes = 8;
constexpr u32 kUnitLines = 2;
constexpr u32 kWholeLineBytes = 128;
constexpr u32 kWholeLineUnits = 15;

// Bytes from one slot to the next, where a slot is to hold `payload` bytes (a multiple of kUnitBytes).
BC_HD u64 slot_stride(u32 protocol, u64 payload) {
  if (protocol == kLL) return 2 * payload;
  constexpr u64 kData = kWholeLineUnits * kUnitBytes;
  return protocol == kLL128 ? (payload + kData - 1) / kData * kWholeLineBytes : payload;
}

// A chunk of nothing has a unit, too: its lines synchronise.
BC_HD u64 units_of(u64 nbytes) { return nbytes ? (nbytes + kUnitBytes - 1) / kUnitBytes : 1; }

// The flag of the chunk with this sequence number, never that of the zeros that memory starts with. LL has room for its
// low half only. A line that holds that already, from 2^32 chunks ago, would be taken for new: `sweeps` sees to it that no
// line is ever that old.
BC_HD u64 flag_of(u64 sequence) { return sequence + 1; }

// LL: whether the writer fills the lines behind the chunk's end, too: for the last `slots` chunks of every 2^31, so that
// every line of every slot has a flag of the last 2^31 + slots. Short chunks alone would leave the rest as it is for ever.
BC_HD bool sweeps(u64 sequence, u32 slots) { return (sequence & 0x7fffffffu) >= 0x80000000u - slots; }

BC_HD u64 line_of(u32 data, u64 flag) { return flag << 32 | data; }

}  // namespace blinkcoll
