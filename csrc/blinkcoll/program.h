// The binary form of a program: the bytes that every executor and the simulator read, whatever they run on.
//
// One blob holds all ranks. It starts with a ProgramHeader; each table is an array of the struct named beside its
// offset. All fields are little-endian u16/u32, so that a blob can be mapped, sent or copied to a device as it is.
// blinkcoll/schedules/encoding.py writes it.
#pragma once

#include "types.h"

namespace blinkcoll {

constexpr u32 kProgramMagic = 0x4c4f4342u;  // "BCOL"
constexpr u32 kProgramVersion = 3;

enum StepOp : u8 { kNop = 0, kCopy = 1, kReduce = 2 };
enum BufferKind : u16 { kInput = 0, kOutput = 1, kScratch = 2, kSlot = 3, kMulticast = 4 };

struct ProgramHeader {
  u32 magic, version, nbytes, nranks;  // nranks: of those that execute, relays after the ranks of the collective
  u32 nconnections, nshares, nshards, nchannels;
  u32 nsteps, noperands, nsyncs, nafters;
  u32 ranks, connections, shares, channels;  // byte offsets from the header
  u32 steps, operands, syncs, afters;
  u32 equal_shards;  // see partition.h
};

// Channels [first_channel, first_channel + nchannels) belong to this rank.
struct RankEntry {
  u32 first_channel, nchannels;
};

// A FIFO of `slots` slots from rank `src` to rank `dst`; it carries chunks of one share only, `uses` of them per
// iteration, so that the sequence number of any use is a closed form (ChannelRun::sequence). `protocol`: see protocol.h.
struct ConnectionEntry {
  u32 src, dst, slots, uses, share, protocol;
};

// Steps [first_step, first_step + nsteps), repeated over the iterations. `watched`: some step waits `after` one of
// this channel's, so its progress is published.
struct ChannelEntry {
  u32 first_step, nsteps, watched;
};

// One step. Its operands are sources first, then destinations; its syncs are waits first, then signals. `postscaled`:
// what it computes is divided by the launch's divisor.
struct StepEntry {
  u8 op, postscaled;
  u16 nsrcs, ndsts, nwaits;
  u16 nsignals, nafters, share, shard;
  u32 first_operand, first_sync, first_after;
};

// `index`: the rank whose buffer it is, or the connection, or (kMulticast) which buffer, input, output or scratch, of all
// ranks: as a source it is the only one of a reduce, and a step has one such destination at most. `use`: which use of the
// connection in this iteration; of a rank's buffer: 1 + the shard, where it is not the step's.
// `prescaled`: a source that is multiplied by the launch's factor.
struct OperandEntry {
  u16 buffer, prescaled;
  u32 index, use;
};

// `use`: which use of the connection in this iteration the wait or signal is for.
struct SyncEntry {
  u32 connection, use;
};

// Channel `channel` of the same rank has completed `step` of iteration (own iteration - lag).
struct AfterEntry {
  u32 channel, step, lag;
};

// Typed access to a blob.
struct ProgramView {
  const char* base;

  BC_HD const ProgramHeader& header() const { return *reinterpret_cast<const ProgramHeader*>(base); }
  template <class Entry>
  BC_HD const Entry* table(u32 offset) const {
    return reinterpret_cast<const Entry*>(base + offset);
  }
  BC_HD const RankEntry& rank(u32 i) const { return table<RankEntry>(header().ranks)[i]; }
  BC_HD const ConnectionEntry& connection(u32 i) const { return table<ConnectionEntry>(header().connections)[i]; }
  // Cumulative weights: share i is [cumulative[i], cumulative[i + 1]) of cumulative[nshares].
  BC_HD const u32* cumulative() const { return table<u32>(header().shares); }
  BC_HD const ChannelEntry& channel(u32 i) const { return table<ChannelEntry>(header().channels)[i]; }
  BC_HD const StepEntry& step(u32 i) const { return table<StepEntry>(header().steps)[i]; }
  BC_HD const OperandEntry* operands(u32 i) const { return table<OperandEntry>(header().operands) + i; }
  BC_HD const SyncEntry* syncs(u32 i) const { return table<SyncEntry>(header().syncs) + i; }
  BC_HD const AfterEntry* afters(u32 i) const { return table<AfterEntry>(header().afters) + i; }
};

}  // namespace blinkcoll
