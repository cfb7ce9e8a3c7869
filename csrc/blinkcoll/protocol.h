// How the news that a chunk has arrived travels: by a counter behind the data (simple), or in the data itself (lines).
//
// LL: a slot is made of lines of eight bytes, four of them data and four the chunk's flag, and a line is loaded and stored
// by one access of eight bytes. Such an access is single-copy atomic (PTX ISA, memory consistency model: a vector access is
// a set of accesses of its element's type, so two lines may be stored by one v2.b64), so who sees the flag sees the data,
// without a fence and without a counter. Credit (`head`) is a counter as ever.
//
// What a line does not do: order anything else. No release goes with it and no acquire; only what depends on its four
// bytes comes after them. The verifier knows (docs/programs.md, protocols).
#pragma once

#include "types.h"

namespace blinkcoll {

enum Protocol : u32 { kSimple = 0, kLL = 1 };

// Payload of two lines, which one access of 16 bytes moves.
constexpr u32 kUnitBytes = 8;
constexpr u32 kUnitLines = 2;

// Bytes from one slot to the next, where a slot is to hold `payload` bytes (a multiple of kUnitBytes).
BC_HD u64 slot_stride(u32 protocol, u64 payload) { return protocol == kLL ? 2 * payload : payload; }

// Two lines for each begun unit, and two for a chunk of nothing: it synchronises too.
BC_HD u64 units_of(u64 nbytes) { return nbytes ? (nbytes + kUnitBytes - 1) / kUnitBytes : 1; }

// The flag of the chunk with this sequence number. A line that holds it already, from 2^32 chunks ago or from the zeros
// that memory starts with, would be taken for new: `sweeps` sees to it that no line is ever that old.
BC_HD u32 flag_of(u64 sequence) { return u32(sequence + 1); }

// Whether the writer fills the lines behind the chunk's end, too: for the last `slots` chunks of every 2^31, so that
// every line of every slot has a flag of the last 2^31 + slots. Short chunks alone would leave the rest as it is for ever.
BC_HD bool sweeps(u64 sequence, u32 slots) { return (sequence & 0x7fffffffu) >= 0x80000000u - slots; }

BC_HD u64 line_of(u32 data, u32 flag) { return u64(flag) << 32 | data; }

}  // namespace blinkcoll
