// What a rank is told at launch: addresses as it sees them, and everything a program leaves open.
//
// blinkcoll/runtime/launch.py mirrors these structs byte for byte; bindings/runtime.cpp exports their sizes and a test
// compares the two.
#pragma once

#include "types.h"

namespace blinkcoll {

enum ReduceOp : u32 { kSum = 0, kProd, kMin, kMax, kBand, kBor, kBxor };
// kOpaque: elements that are only copied.
enum DType : u32 { kOpaque = 0, kFloat32, kFloat64, kFloat16, kBFloat16, kInt64, kInt32, kInt16, kInt8, kUInt8, kBool };

// A rank's input, output and scratch, indexed by BufferKind: where the whole of the data would begin, so that a buffer
// that holds the rank's own shard only is addressed like any other (the sum wraps around where that is before 0).
struct BufferAddresses {
  u64 buffer[3];
};

// The two counters and the slots of a connection. `tail`: chunks published so far, written by the source, in the
// destination's memory. `head`: chunks taken so far, written by the destination, in the source's memory. Each polls its
// own memory and writes into the other's.
struct ConnectionAddresses {
  u64 slots, tail, head;
};

constexpr u32 kLineBytes = 128;  // counters of different connections never share a cache line

// A counter's cache line. Hosts sleep while they wait, so there is room for who does: the counter's reader sets `waited`
// before it sleeps, and whoever raises the counter then rings the reader's doorbell, `doorbell` bytes from this line (0:
// the reader never sleeps). Counter, mark and doorbell lie in the reader's arena, mapped as one everywhere. The mark has a line of
// its own: nobody writes it while nobody sleeps, so that to look at it costs nothing, whoever has the counter's just then.
//
// On hosts, `call` says what call each chunk is part of (host/callword.h), written before `value` says that it has come: chunk
// n's in `call[n % slots]` where so many chunks (at most kSignedCalls) share the line, so that nobody overwrites what is still to
// be read.
//
// Hosts copy fastest where source and target begin alike within a cache line. So data in a slot begin `skew[n % slots]` bytes later, as
// what they are copied to or from, to 16 bytes, where the launch has room for it and the connection no more than kSkewedSlots slots.
constexpr u32 kSignedCalls = 4, kSkewedSlots = 16;
constexpr u64 kSkews = 48;  // the bits of an address that are kept
struct CounterLine {
  u64 value;
  int doorbell;
  u32 pad;
  u64 call[kSignedCalls];
  u8 skew[kSkewedSlots];
  u32 waited;
};

// A connection is *headed* where `tail` is where its slots begin: each slot then has a counter of its own in front, whose value is
// the number of the chunk in it, counted from 1. That a chunk has come, what call it is of and, if it is small, its data come in one
// cache line, and none of the lines is written again before its slot's turn comes. For hosts.
constexpr u64 kHeadBytes = kLineBytes, kHeadData = 32, kHeadRoom = 32;  // where small data begin, and how much there may be
// number % slots, without a division where that is easy.
BC_HD u64 turn_of(u64 number, u32 slots) { return (slots & (slots - 1)) == 0 ? number & (slots - 1) : number % slots; }
BC_HD bool headed(const ConnectionAddresses& at) { return at.tail == at.slots; }
BC_HD u64 headed_stride(u64 payload) { return (kHeadBytes + payload + kLineBytes - 1) / kLineBytes * kLineBytes; }
BC_HD u64 headed_offset(u64 nbytes) { return nbytes <= kHeadRoom ? kHeadData : kHeadBytes; }

enum RecordCode : u32 { kRan = 0, kTimedOut = 1, kAborted = 2, kUnreachable = 3, kOtherCall = 4 };

// Why a channel stopped before its end: what it waited for. `index` is a connection, or the channel that an `after`
// names; kOnNothing: what it waited for came true between giving up and taking this note. kUnreachable: the memory of rank
// `index` could not be read or written, for the reason `seen` (an errno). kOtherCall: what came over connection `index` is
// part of another call, `seen` (0: only so much is known).
enum WaitKind : u32 { kOnNothing = 0, kOnConnection = 1, kOnChannel = 2 };
struct ChannelRecord {
  u32 code, step, kind, index;
  u64 iteration, target, seen;
};

struct Launch {
  u64 program;      // the program's bytes
  u64 buffers;      // BufferAddresses[nranks]
  u64 connections;  // ConnectionAddresses[nconnections]
  u64 cursors;      // u64[nconnections], this rank's: chunks that went through in earlier launches
  u64 progress;     // one cache line per channel of this rank: epoch << 32 | steps completed
  u64 records;      // ChannelRecord[channels of this rank]
  u64 abort;        // u32 of this rank; not zero: leave
  u64 doorbell;     // u32 of this rank that peers raise when it sleeps; 0: it never sleeps on it
  u64 bounds, places;  // u64[nshards + 1] and u64[nshards] where shards are unequal, see partition.h; else 0
  u64 count, chunk_bytes, slot_bytes;
  u64 skewed;       // not zero: data in slots may begin up to kSkews bytes later (CounterLine::skew), and slot_bytes has room for that
  u64 spots;        // chunks lie in so many places of a slot in turn (spot_of()); 0, 1: at its beginning. For hosts
  u64 timeout_ns;   // the longest a channel waits without progress
  double prescale;  // inputs marked so are multiplied by it, this rank's own; 1: they are not
  u32 rank, elem_size, dtype, op;
  u32 epoch;        // 1, 2 ... for each launch on the same counters
  u32 divisor;      // results marked so are divided by it; 1: they are not
  u64 multicast[3]; // this rank's mappings of the multicast objects that inputs, outputs, scratch of all ranks are bound
                    // to, by the address at which the whole would begin; 0: none, all ranks' memory is accessed one by one
};

// Where in its slot the `turn`-th chunk begins that lies there. Chunks that are smaller than slots so go round in all of the slots' memory, which
// is more than a core's own caches hold.
BC_HD u64 spot_of(const Launch& launch, u64 turn) { return launch.spots > 1 ? turn % launch.spots * (launch.slot_bytes / launch.spots / kLineBytes * kLineBytes) : 0; }

}  // namespace blinkcoll
