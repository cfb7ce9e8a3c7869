// The step interpreter: one source for host threads, host processes and CUDA blocks.
//
// A ChannelRun is one channel of one rank. `advance()` tries the next step: it waits (or looks, on a platform that must
// not block), moves the data, signals. A platform supplies the lanes that work together on a step (the threads of a
// block; one lane on the host), its memory orders and its data movers:
//
//   u32 lane(), lanes()          this lane's index, and how many there are
//   Look look(word, target)      has *word reached target? acquire. A GPU lane spins until it can tell.
//   bool all(bool)               true where it is true for all lanes; a barrier among them
//   void barrier()               orders all memory operations of all lanes before it with all after it
//   void publish(word, value)    release store that the peer's look() synchronises with
//   void publish_local(...)      the same, where only this rank's own channels look
//   u64 peek(word)               its value, ordering nothing; bool aborted(): whether the rank was told to leave
//   void copy(dsts, ndsts, src, nbytes), void reduce(dsts, ndsts, srcs, nsrcs, count, scaling)
//   void move_group(step)        a step with operands of all ranks; on its own it orders what it does through a multicast
//                                mapping after what other lanes' looks acquired and before what is published next
//   kLines                       whether it moves low-latency protocols by their lines (protocol.h). If not, every
//                                connection is run by the simple protocol, whose promises are the stronger ones. If so:
//   bool copy_lines(...), reduce_lines(...)    the same on Places; false where a line did not come in time
//   bool has_lines(place, units)               whether all have come; for notes about waits that failed
//   kSigned                      whether counters carry what call a chunk is part of (launch.h). If so:
//   void sign(tail, number, slots)             says it of a chunk, before publish()
//   bool agrees(tail, number, slots, sync)     whether it is the call under way; if not, differs_at() is that sync, and
//                                              differs() the other call where it is known
//   kHeaded                      whether slots may begin with counters of their own (launch.h, headed)
//   kSkewed                      whether data in slots may begin later than slots do (launch.h). If so:
//   u32 skew(tail, number, slots)              how much later a chunk does
//   void set_skew(tail, number, slots, skew)   says it of one, before publish()
//   kSpots                       whether chunks may lie in several places of a slot in turn (launch.h)
//   kKeepsCredit                 whether it remembers what its looks at `head` have seen. If so:
//   Look look_for_credit(connection, word, target)     look(), where that does not know already
//   kFar                         whether other ranks' buffers may lie in memory that loads and stores do not reach. If so:
//   bool far(rank)                             whether that rank's do
//   bool copy_far(dsts, ndsts, src, nbytes), reduce_far(dsts, ndsts, srcs, nsrcs, count, scaling)
//                                              the same on Remotes; false where memory was out of reach: lost(), error()
//
// How the order of memory operations follows: data is written by all lanes, barrier(), then one lane publishes `tail`
// with release; the reader's lane looks with acquire, all(), then all lanes read. Both are cumulative over the barrier,
// so the acquire orders every lane's reads after every writer lane's writes. The same chain in the other direction
// (`head`) orders the reader's last read of a slot before the writer's next write to it, and, since causality is
// transitive, the up half of a tree before the down half that overwrites the input of an in-place call.
//
// Of a connection in lines the reader waits for no counter: its movers look at every line, and a line is both data and
// news (protocol.h). It makes no such chain. Where a later step overwrites what an earlier one read, what it writes has
// been computed from what that one read, element by element, so the load was over before the store could begin
// (cuda/lines.h); the verifier lets nothing else rest on lines. Credit goes by `head` as above: a slot's lines are loaded,
// barrier, release; acquire, barrier, and the slot's lines are stored anew.
#pragma once

#include "arithmetic.h"
#include "launch.h"
#include "partition.h"
#include "program.h"
#include "protocol.h"
#include "types.h"

namespace blinkcoll {

constexpr u32 kMostOperands = 64;
constexpr u32 kMostSyncs = 0xffffffffu;

enum class Look : u32 { kReached, kPending, kGaveUp };
enum class Outcome : u32 { kProgress, kBlocked, kFinished, kFailed };

// A counter and the value that a step waits for. `slots`: of the connection, where it is a chunk's arrival that is waited for.
struct Condition {
  const u64* word;
  u64 target;
  u32 slots;
};

// Where an operand of a step with lines is: plain memory (kSimple), or a slot in lines and the flag of its chunk.
// `sweep`: lines behind the chunk's end are stored, too.
struct Place {
  char* at;
  u64 flag;
  u32 protocol;
  bool sweep;
};

template <class T>
BC_HD T* pointer(u64 address) {
  return reinterpret_cast<T*>(address);
}

// Where an operand is, and in which rank's memory.
struct Remote {
  char* at;
  u32 rank;
};

// A place of all ranks: at(r) is rank r's, `mapped` the same by way of the switch, 0 where there is no such mapping.
struct Everywhere {
  const BufferAddresses* buffers;
  u64 offset;  // bytes
  u32 region, nranks;
  u64 mapped;

  BC_HD char* at(u32 rank) const { return pointer<char>(buffers[rank].buffer[region] + offset); }
};

// What a step with operands of all ranks does. `from`: its source, added up; null: `srcs`. `to`: stored to, besides `dsts`.
struct GroupStep {
  const Everywhere *from, *to;
  char* const* dsts;
  u32 ndsts;
  char* const* srcs;
  u32 nsrcs;
  u64 count, nbytes;
  Scaling scaling;
  bool plain;  // a copy that scales nothing: bytes, whatever the elements are
};

template <class Platform>
class ChannelRun {
 public:
  // `channel` counts from 0 within the rank.
  BC_HD ChannelRun(const Launch& launch, u32 channel)
      : launch_(launch), view_{pointer<const char>(launch.program)}, local_(channel) {
    const ProgramHeader& h = view_.header();
    entry_ = &view_.channel(view_.rank(launch.rank).first_channel + channel);
    partition_ = {launch.count, launch.chunk_bytes, launch.elem_size, h.nshards, h.nshares, h.equal_shards, view_.cumulative(), pointer<const u64>(launch.bounds), pointer<const u64>(launch.places)};
    for (u32 s = 0; s < entry_->nsteps; s++) {
      u64 n = loop_of(view_.step(entry_->first_step + s).share).iterations;
      if (n > iterations_) iterations_ = n;
    }
  }

  // One step, or nothing where it would have to wait and the platform must not.
  BC_HD Outcome advance(Platform& p) {
    if (iteration_ == iterations_) return finish(p);
    const StepEntry& step = view_.step(entry_->first_step + position_);
    if (iteration_ < loop_of(step.share).iterations) {
      bool gave_up = false;
      bool ready = look_at_all(p, step, &gave_up);
      if (!p.all(ready)) {
        if (p.all(!gave_up)) return Outcome::kBlocked;
        if (p.lane() == 0) record(p, step);
        return Outcome::kFailed;
      }
      if (!move(p, step)) {
        if (p.lane() == 0) record(p, step);
        return Outcome::kFailed;
      }
      signal_all(p, step);
    }
    if (entry_->watched && p.lane() == 0) publish_progress(p, iteration_ * entry_->nsteps + position_ + 1);
    if (++position_ == entry_->nsteps) {
      position_ = 0;
      iteration_++;
    }
    return Outcome::kProgress;
  }

  // The first thing that it waits for; kOnNothing where it does not wait, or what it waited for has just come.
  BC_HD ChannelRecord waiting(Platform& p) {
    if (iteration_ == iterations_) return {kRan, 0, kOnNothing, 0, iteration_, 0, 0};
    return note_of(p, view_.step(entry_->first_step + position_));
  }

 private:
  // -- waiting -------------------------------------------------------------------------------------------------

  BC_HD bool look_at_all(Platform& p, const StepEntry& step, bool* gave_up) {
    bool ready = true;
    for (u32 i = p.lane(); i < u32(step.nwaits) + step.nafters; i += p.lanes()) {
      Condition c = condition(step, i);
      if (c.target == 0) continue;
      Look seen = look_at(p, step, i, c);
      if (seen != Look::kReached) ready = false;
      if constexpr (Platform::kSigned) {
        if (ready && c.slots && !p.agrees(c.word, c.target, c.slots, step.first_sync + i)) {
          *gave_up = true;
          return false;
        }
      }
      if (seen == Look::kGaveUp) *gave_up = true;
    }
    return ready;
  }

  BC_HD Look look_at(Platform& p, const StepEntry& step, u32 i, const Condition& c) {
    if constexpr (Platform::kKeepsCredit) {
      if (i < step.nwaits && !c.slots) return p.look_for_credit(view_.syncs(step.first_sync)[i].connection, c.word, c.target);
    }
    return p.look(c.word, c.target);
  }

  // The i-th thing a step waits for: its connections first, then other channels of this rank.
  BC_HD Condition condition(const StepEntry& step, u32 i) const {
    if (i < step.nwaits) {
      const SyncEntry& sync = view_.syncs(step.first_sync)[i];
      const ConnectionEntry& c = view_.connection(sync.connection);
      const ConnectionAddresses& at = addresses(sync.connection);
      u64 needed = sequence(sync.connection, sync.use) + 1;
      if (c.dst == launch_.rank) return {tail_of(sync.connection, needed), in_lines(c) ? 0 : needed, signed_slots(at, c)};  // the chunk has arrived
      return {pointer<const u64>(at.head), needed > c.slots ? needed - c.slots : 0, 0};  // its slot has been given back
    }
    const AfterEntry& after = view_.afters(step.first_after)[i - step.nwaits];
    const u64* word = pointer<const u64>(launch_.progress + u64(after.channel) * kLineBytes);
    if (iteration_ < after.lag) return {word, 0, 0};
    u32 nsteps = view_.channel(view_.rank(launch_.rank).first_channel + after.channel).nsteps;
    return {word, progress_word((iteration_ - after.lag) * nsteps + after.step + 1), 0};
  }

  // Leave a note of the first wait that has not come true. Lane 0 only; the waits may come true meanwhile.
  BC_HD void record(Platform& p, const StepEntry& step) { pointer<ChannelRecord>(launch_.records)[local_] = note_of(p, step); }

  BC_HD ChannelRecord note_of(Platform& p, const StepEntry& step) {
    ChannelRecord note{p.aborted() ? kAborted : kTimedOut, position_, kOnNothing, 0, iteration_, 0, 0};
    if constexpr (Platform::kSigned) {
      if (p.differs_at() != kMostSyncs) {
        return {kOtherCall, position_, kOnConnection, view_.syncs(p.differs_at())[0].connection, iteration_, 0, p.differs()};
      }
    }
    if constexpr (Platform::kFar) {
      if (p.error()) {
        return {kUnreachable, position_, kOnNothing, p.lost(), iteration_, 0, u64(p.error())};
      }
    }
    for (u32 i = 0; i < u32(step.nwaits) + step.nafters; i++) {
      Condition c = condition(step, i);
      u64 seen = p.peek(c.word);
      if constexpr (Platform::kHeaded) {
        if (c.slots && seen < c.target) seen = published(p, view_.syncs(step.first_sync)[i].connection);
      }
      if (i < step.nwaits && lines_are_missing(p, step, view_.syncs(step.first_sync)[i], &c.target)) seen = c.target - 1;
      if (seen >= c.target) continue;
      bool slot = i < step.nwaits;
      note.kind = slot ? kOnConnection : kOnChannel;
      note.index = slot ? view_.syncs(step.first_sync)[i].connection : view_.afters(step.first_after)[i - step.nwaits].channel;
      note.target = c.target;
      note.seen = seen;
      break;
    }
    return note;
  }

  // Whether the rank reads this connection in lines, and the chunk that it waits for has not come whole. `target` is then
  // how many chunks would have to be there.
  BC_HD bool lines_are_missing(Platform& p, const StepEntry& step, const SyncEntry& sync, u64* target) {
    if constexpr (Platform::kLines) {
      const ConnectionEntry& c = view_.connection(sync.connection);
      if (c.dst != launch_.rank || !in_lines(c)) return false;
      const Place place = slot_of(sync.connection, sync.use, 0);
      if (p.has_lines(place, units_of(chunk(step.shard, step.share).length * launch_.elem_size))) return false;
      *target = sequence(sync.connection, sync.use) + 1;
      return true;
    }
    return false;
  }

  // -- where chunks are announced ------------------------------------------------------------------------------------

  // The counter that says that the `number`-th chunk of a connection has come: all chunks', or its slot's own.
  BC_HD u64* tail_of(u32 connection, u64 number) const {
    const ConnectionAddresses& at = addresses(connection);
    if constexpr (Platform::kHeaded) {
      if (headed(at)) return pointer<u64>(at.slots + turn_of(number - 1, view_.connection(connection).slots) * headed_stride(launch_.slot_bytes));
    }
    return pointer<u64>(at.tail);
  }

  // How many chunks share one counter's line.
  BC_HD u32 signed_slots(const ConnectionAddresses& at, const ConnectionEntry& c) const { return Platform::kHeaded && headed(at) ? 1 : c.slots; }

  // How many chunks of a connection have been announced.
  BC_HD u64 published(const Platform& p, u32 connection) const {
    u64 most = 0;
    for (u32 slot = 0; slot < view_.connection(connection).slots; slot++) {
      const u64 number = p.peek(tail_of(connection, slot + 1));
      if (number > most) most = number;
    }
    return most;
  }

  BC_HD bool in_lines(const ConnectionEntry& c) const { return Platform::kLines && c.protocol != kSimple; }

  // -- moving --------------------------------------------------------------------------------------------------

  // Moves the step's data, all lanes together: when it returns, all have done so. False where data did not come.
  BC_HD bool move(Platform& p, const StepEntry& step) {
    const Range range = step.op == kNop ? Range{0, 0} : chunk(step.shard, step.share);
    const OperandEntry* operands = view_.operands(step.first_operand);
    if constexpr (Platform::kLines) {
      if (touches_lines(step, operands)) return p.all(move_lines(p, step, operands, range));
    }
    if constexpr (Platform::kFar) {
      if (range.length != 0 && reaches_far(p, step, operands)) return move_far(p, step, operands, range);
    }
    if (range.length != 0) move_plain(p, step, operands, range);
    p.barrier();
    return true;
  }

  BC_HD bool reaches_far(const Platform& p, const StepEntry& step, const OperandEntry* operands) const {
    for (u32 i = 0; i < u32(step.nsrcs) + step.ndsts; i++)
      if (operands[i].buffer <= kScratch && operands[i].index != launch_.rank && p.far(operands[i].index)) return true;
    return false;
  }

  BC_HD bool move_far(Platform& p, const StepEntry& step, const OperandEntry* operands, const Range& range) {
    Remote at[kMostOperands];
    for (u32 i = 0; i < u32(step.nsrcs) + step.ndsts; i++)
      at[i] = {locate(operands[i], step, range).at, operands[i].buffer <= kScratch ? operands[i].index : launch_.rank};
    const Scaling scaling = scaling_of(step, operands);
    if (step.op == kCopy && !scaling.prescaled && !scaling.postscaled) return p.copy_far(at + 1, step.ndsts, at[0], range.length * launch_.elem_size);
    return p.reduce_far(at + step.nsrcs, step.ndsts, at, step.nsrcs, range.length, scaling);
  }

  BC_HD bool touches_lines(const StepEntry& step, const OperandEntry* operands) const {
    for (u32 i = 0; i < u32(step.nsrcs) + step.ndsts; i++)
      if (operands[i].buffer == kSlot && in_lines(view_.connection(operands[i].index))) return true;
    return false;
  }

  BC_HD void move_plain(Platform& p, const StepEntry& step, const OperandEntry* operands, const Range& range) {
    char* at[kMostOperands];
    bool group = false;
    for (u32 i = 0; i < u32(step.nsrcs) + step.ndsts; i++) {
      group = group || operands[i].buffer == kMulticast;
      at[i] = locate(operands[i], step, range).at;
    }
    if constexpr (Platform::kSkewed) {
      if (launch_.skewed) skew_slots(p, step, operands, at);
    }
    const Scaling scaling = scaling_of(step, operands);
    if (group) return move_group(p, step, operands, at, range, scaling);
    if (step.op == kCopy && !scaling.prescaled && !scaling.postscaled) {
      p.copy(at + 1, step.ndsts, at[0], range.length * launch_.elem_size);
    } else {
      p.reduce(at + step.nsrcs, step.ndsts, at, step.nsrcs, range.length, scaling);
    }
  }

  // Where data begin in slots: sources, where their writers say; destinations, like the first destination that is no slot, or
  // else like the first such source, or the first source.
  BC_HD void skew_slots(Platform& p, const StepEntry& step, const OperandEntry* operands, char** at) {
    const u32 n = u32(step.nsrcs) + step.ndsts;
    for (u32 i = 0; i < step.nsrcs; i++)
      if (skewed(operands[i])) at[i] += p.skew(tail_of(operands[i]), number_of(operands[i]), view_.connection(operands[i].index).slots);
    u32 like = n;
    for (u32 i = step.nsrcs; i < n && like == n; i++)
      if (operands[i].buffer <= kScratch) like = i;
    for (u32 i = 0; i < step.nsrcs && like == n; i++)
      if (operands[i].buffer <= kScratch) like = i;
    const u64 begin = u64(at[like == n ? 0 : like]) & kSkews;
    for (u32 i = step.nsrcs; i < n; i++) {
      if (!skewed(operands[i])) continue;
      p.set_skew(tail_of(operands[i]), number_of(operands[i]), view_.connection(operands[i].index).slots, u32(begin));
      at[i] += begin;
    }
  }

  BC_HD bool skewed(const OperandEntry& operand) const {
    return operand.buffer == kSlot && view_.connection(operand.index).slots <= kSkewedSlots && !headed(addresses(operand.index));
  }
  BC_HD u64 number_of(const OperandEntry& slot) const { return sequence(slot.index, slot.use) + 1; }
  BC_HD u64* tail_of(const OperandEntry& slot) const { return tail_of(slot.index, number_of(slot)); }

  BC_HD void move_group(Platform& p, const StepEntry& step, const OperandEntry* operands, char** at, const Range& range, const Scaling& scaling) const {
    Everywhere from, to;
    GroupStep g{nullptr, nullptr, at + step.nsrcs, 0, at, step.nsrcs, range.length, range.length * launch_.elem_size, scaling,
                step.op == kCopy && !scaling.prescaled && !scaling.postscaled};
    if (operands[0].buffer == kMulticast) {  // the only source
      from = everywhere(operands[0], range.offset);
      g.from = &from;
      g.nsrcs = 0;
    }
    for (u32 d = 0; d < step.ndsts; d++) {
      const OperandEntry& dst = operands[step.nsrcs + d];
      if (dst.buffer != kMulticast) {
        at[step.nsrcs + g.ndsts++] = at[step.nsrcs + d];
      } else {
        to = everywhere(dst, range.offset);
        g.to = &to;
      }
    }
    p.move_group(g);
  }

  BC_HD Everywhere everywhere(const OperandEntry& operand, u64 offset) const {
    const u64 mapped = launch_.multicast[operand.index], bytes = offset * launch_.elem_size;
    return {pointer<const BufferAddresses>(launch_.buffers), bytes, operand.index, view_.header().nranks, mapped ? mapped + bytes : 0};
  }

  // Also where the chunk is empty: its lines are what synchronises.
  BC_HD bool move_lines(Platform& p, const StepEntry& step, const OperandEntry* operands, const Range& range) {
    Place places[kMostOperands];
    for (u32 i = 0; i < u32(step.nsrcs) + step.ndsts; i++) places[i] = locate(operands[i], step, range);
    const Scaling scaling = scaling_of(step, operands);
    if (step.op == kCopy && !scaling.prescaled && !scaling.postscaled) {
      return p.copy_lines(places + 1, step.ndsts, places[0], range.length * launch_.elem_size);
    }
    return p.reduce_lines(places + step.nsrcs, step.ndsts, places, step.nsrcs, range.length, scaling);
  }

  // Scaling by 1 is left out, so that a launch without it computes as if the program had no marks.
  BC_HD Scaling scaling_of(const StepEntry& step, const OperandEntry* operands) const {
    Scaling scaling{0, step.postscaled && launch_.divisor != 1, launch_.prescale, launch_.divisor};
    if (launch_.prescale == 1) return scaling;
    for (u32 i = 0; i < step.nsrcs; i++) scaling.prescaled |= u64(operands[i].prescaled) << i;
    return scaling;
  }

  BC_HD Place locate(const OperandEntry& operand, const StepEntry& step, const Range& range) const {
    if (operand.buffer == kSlot) return slot_of(operand.index, operand.use, range.length * launch_.elem_size);
    if (operand.buffer == kMulticast) return {nullptr, 0, kSimple, false};
    u64 base = pointer<const BufferAddresses>(launch_.buffers)[operand.index].buffer[operand.buffer];
    u64 offset = range.offset;
    if (operand.use) {
      // loop_ is of the step's share since its turn came.
      offset = Partition::chunk_of(partition_.share_range(operand.use - 1, step.share), loop_.chunk, iteration_).offset;
    } else if (operand.buffer == kOutput) {
      offset = partition_.output_offset(step.shard, range);
    }
    return {pointer<char>(base + offset * launch_.elem_size), 0, kSimple, false};
  }

  // Where a chunk of so many bytes lies in its slot.
  BC_HD Place slot_of(u32 connection, u32 use, u64 nbytes) const {
    const ConnectionEntry& c = view_.connection(connection);
    const u64 n = sequence(connection, use);
    if constexpr (Platform::kHeaded) {
      if (headed(addresses(connection))) return {reinterpret_cast<char*>(tail_of(connection, n + 1)) + headed_offset(nbytes), 0, kSimple, false};
    }
    char* at = pointer<char>(addresses(connection).slots + n % c.slots * slot_stride(c.protocol, launch_.slot_bytes));
    if constexpr (Platform::kSpots) at += spot_of(launch_, n / c.slots);
    return {at, flag_of(n), in_lines(c) ? c.protocol : u32(kSimple), c.protocol == kLL && sweeps(n, c.slots)};
  }

  // -- signalling ----------------------------------------------------------------------------------------------

  BC_HD void signal_all(Platform& p, const StepEntry& step) {
    for (u32 i = p.lane(); i < step.nsignals; i += p.lanes()) {
      const SyncEntry& sync = view_.syncs(step.first_sync + step.nwaits)[i];
      const ConnectionEntry& c = view_.connection(sync.connection);
      bool reads = c.dst == launch_.rank;
      if (!reads && in_lines(c)) continue;  // its lines have said so
      const u64 number = sequence(sync.connection, sync.use) + 1;
      const ConnectionAddresses& at = addresses(sync.connection);
      u64* const word = reads ? pointer<u64>(at.head) : tail_of(sync.connection, number);
      if constexpr (Platform::kSigned) {
        if (!reads) p.sign(word, number, signed_slots(at, c));
      }
      p.publish(word, number);
    }
  }

  BC_HD void publish_progress(Platform& p, u64 steps) {
    p.publish_local(pointer<u64>(launch_.progress + u64(local_) * kLineBytes), progress_word(steps));
  }

  // Epochs make the words of one launch larger than those of any before it, so nothing has to be reset.
  BC_HD u64 progress_word(u64 steps) const { return u64(launch_.epoch) << 32 | steps; }

  // The last step is done: move the cursors on, once. The barrier: other lanes may still be computing the sequence
  // numbers of the last signals from the old cursors.
  BC_HD Outcome finish(Platform& p) {
    if (finished_) return Outcome::kFinished;
    finished_ = true;
    p.barrier();
    if (p.lane() != 0) return Outcome::kFinished;
    u64* cursors = pointer<u64>(launch_.cursors);
    for (u32 s = 0; s < entry_->nsteps; s++) {
      const StepEntry& step = view_.step(entry_->first_step + s);
      for (u32 i = 0; i < step.nsignals; i++) {
        const SyncEntry& sync = view_.syncs(step.first_sync + step.nwaits)[i];
        if (sync.use == 0) cursors[sync.connection] += loop_of(step.share).iterations * view_.connection(sync.connection).uses;
      }
    }
    if (entry_->watched) publish_progress(p, 0xffffffffu);
    return Outcome::kFinished;
  }

  // -- numbers -------------------------------------------------------------------------------------------------

  // The sequence number of a use of a connection in this iteration, counted from the connection's creation.
  BC_HD u64 sequence(u32 connection, u32 use) const {
    return pointer<const u64>(launch_.cursors)[connection] + iteration_ * view_.connection(connection).uses + use;
  }

  BC_HD const ConnectionAddresses& addresses(u32 connection) const {
    return pointer<const ConnectionAddresses>(launch_.connections)[connection];
  }

  // Chunk `iteration_` of (shard, share); the share's range is remembered, since a channel mostly stays with one.
  BC_HD Range chunk(u32 shard, u32 share) {
    if (shard != shard_ || share != share_) {
      whole_ = partition_.share_range(shard, share);
      shard_ = shard;
      share_ = share;
    }
    return Partition::chunk_of(whole_, loop_of(share).chunk, iteration_);
  }

  BC_HD const Loop& loop_of(u32 share) {
    if (share != looped_share_) {
      loop_ = partition_.loop_of(share);
      looped_share_ = share;
    }
    return loop_;
  }

  const Launch& launch_;
  ProgramView view_;
  const ChannelEntry* entry_;
  Partition partition_;
  Loop loop_ = {0, 0};
  u64 iterations_ = 0, iteration_ = 0;
  Range whole_ = {0, 0};
  u32 local_, position_ = 0;
  u32 shard_ = 0xffffffffu, share_ = 0xffffffffu, looped_share_ = 0xffffffffu;
  bool finished_ = false;
};

}  // namespace blinkcoll
