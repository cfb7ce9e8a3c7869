#include "simulation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace blinkcoll::simulator {
// -- signals -----------------------------------------------------------------------------------------------------

void Simulation::Signals::reset(uint32_t least) {
  size_t size = 4;
  while (size < least) size *= 2;
  ring_.assign(size, {0, kNoRecord});
  count_ = 0;
}

void Simulation::Signals::push(Stamp stamp, uint64_t oldest_needed) {
  if (count_ > oldest_needed && count_ - oldest_needed >= ring_.size()) {
    std::vector<Stamp> larger(ring_.size() * 2);
    for (uint64_t i = oldest_needed; i < count_; i++) larger[i & (larger.size() - 1)] = at(i);
    ring_ = std::move(larger);
  }
  ring_[count_++ & (ring_.size() - 1)] = stamp;
}

// -- a run ---------------------------------------------------------------------------------------------------------

Simulation::Simulation(const Prepared& prepared, const Launch& launch)
    : prepared_(prepared), program_(prepared.program), elem_size_(launch.elem_size), trace_(launch.trace),
      channels_(program_.header().nchannels), connections_(program_.header().nconnections), moved_(program_.header().nsteps, 0.0),
      queue_(program_.header().nchannels), sharing_(prepared.capacity, prepared.uses, program_.header().nchannels),
      busy_(program_.header().nranks, {std::numeric_limits<double>::infinity(), 0}) {
  const ProgramHeader& header = program_.header();
  partition_ = {launch.count, launch.chunk_bytes, launch.elem_size, header.nshards, header.nshares, header.equal_shards, program_.cumulative(), launch.bounds, nullptr};
  loops_.resize(header.nshares);
  for (u32 share = 0; share < header.nshares; share++) {
    loops_[share] = partition_.loop_of(share);
    for (u32 shard = 0; shard < header.nshards; shard++) ranges_.push_back(partition_.share_range(shard, share));
  }
  for (u32 c = 0; c < header.nconnections; c++) {
    const uint32_t slots = program_.connection(c).slots;
    connections_[c].published.reset(slots);
    connections_[c].taken.reset(slots + 1);
    connections_[c].reader_waits = connections_[c].writer_waits = kNobody;
  }
  for (u32 rank = 0; rank < header.nranks; rank++) {
    const RankEntry& entry = program_.rank(rank);
    for (u32 c = entry.first_channel; c < entry.first_channel + entry.nchannels; c++) {
      const ChannelEntry& made = program_.channel(c);
      Channel& channel = channels_[c];
      channel = {rank, made.first_step, made.nsteps, made.watched, 0, 0, 0, State::kBlocked, 0, kNoRecord, {}, {}, {}};
      for (u32 s = 0; s < made.nsteps; s++) {
        const uint64_t iterations = loops_[program_.step(made.first_step + s).share].iterations;
        channel.iterations = std::max(channel.iterations, iterations);
        steps_to_run_ += iterations;
      }
    }
  }
  for (uint32_t c = 0; c < channels_.size(); c++) try_start(c);
}

bool Simulation::advance(double within_us) {
  const bool limited = !std::isinf(within_us);
  while (!queue_.empty()) {
    const double now = queue_.next_time();
    if (limited && steps_run_ >= next_look_) look(now);
    if (limited && least_end_us_ > within_us) return false;
    while (!queue_.empty() && queue_.next_time() <= now + kTogetherUs) {
      uint32_t c = queue_.pop();
      if (channels_[c].state == State::kStarting) {
        begin(c, now);
      } else {
        sharing_.finish(c);
        complete(c, now);
      }
    }
    for (uint32_t c : sharing_.settle(now)) queue_.set(c, sharing_.completion(c));
  }
  for (const Channel& channel : channels_)
    if (channel.state != State::kDone) fail_deadlocked();
  return true;
}

// Move on to the next step that has something to do, and start it or note what it waits for.
void Simulation::try_start(uint32_t index) {
  Channel& channel = channels_[index];
  for (;; channel.position++) {
    if (channel.position == channel.nsteps) {
      channel.position = 0;
      channel.iteration++;
    }
    if (channel.iteration >= channel.iterations) {
      channel.state = State::kDone;
      return;
    }
    if (channel.iteration < loops_[program_.step(channel.first_step + channel.position).share].iterations) break;
    // Skipped: others that wait for this step need not.
    if (channel.watched) channel.progress.push_back({channel.free_at, channel.last_record});
  }
  const uint32_t s = channel.first_step + channel.position;
  Stamp last{channel.free_at, channel.last_record};
  Cause cause = channel.last_record == kNoRecord ? Cause::kStart : Cause::kOwnChannel;
  channel.state = State::kBlocked;
  if (!ready(index, program_.step(s), &last, &cause)) return;
  channel.state = State::kStarting;
  channel.current = {index, channel.position, uint32_t(cause), last.record, channel.iteration, channel.free_at, 0, 0, 0};
  queue_.set(index, last.time + prepared_.plans[s].delay_us);
}

// Whether all waits of the step will come true without anybody doing more; `last` is the latest of them.
bool Simulation::ready(uint32_t index, const StepEntry& step, Stamp* last, Cause* cause) {
  const Channel& channel = channels_[index];
  auto later = [&](const Stamp& stamp, Cause why) {
    if (stamp.time <= last->time) return;
    *last = stamp;
    *cause = why;
  };
  const SyncEntry* syncs = program_.syncs(step.first_sync);
  for (u32 i = 0; i < step.nwaits; i++) {
    const ConnectionEntry& entry = program_.connection(syncs[i].connection);
    Connection& connection = connections_[syncs[i].connection];
    uint64_t sequence = channel.iteration * entry.uses + syncs[i].use;
    if (channel.rank == entry.dst) {
      if (!connection.published.reached(sequence)) {
        connection.reader_waits = index;
        return false;
      }
      later(connection.published.at(sequence), Cause::kArrival);
    } else if (sequence >= entry.slots) {
      if (!connection.taken.reached(sequence - entry.slots)) {
        connection.writer_waits = index;
        return false;
      }
      later(connection.taken.at(sequence - entry.slots), Cause::kCredit);
    }
  }
  for (u32 i = 0; i < step.nafters; i++) {
    const AfterEntry& after = program_.afters(step.first_after)[i];
    if (channel.iteration < after.lag) continue;
    Channel& other = channels_[program_.rank(channel.rank).first_channel + after.channel];
    uint64_t needed = (channel.iteration - after.lag) * other.nsteps + after.step;
    if (needed < other.progress.size()) {
      later(other.progress[needed], Cause::kAfter);
    } else if (other.state != State::kDone) {
      other.watchers.push_back(index);
      return false;
    } else if (!other.progress.empty()) {
      later(other.progress.back(), Cause::kAfter);
    }
  }
  return true;
}

double Simulation::bytes_of(const StepEntry& step, uint64_t iteration) const {
  if (step.op == kNop) return 0;
  return double(Partition::chunk_of(ranges_[step.share * size_t(partition_.nshards) + step.shard], loops_[step.share].chunk, iteration).length) * elem_size_;
}

void Simulation::begin(uint32_t index, double now) {
  Channel& channel = channels_[index];
  const uint32_t s = channel.first_step + channel.position;
  const StepEntry& step = program_.step(s);
  channel.current.start_us = now;
  busy_[channel.rank].first = std::min(busy_[channel.rank].first, now - prepared_.plans[s].delay_us);
  const double nbytes = bytes_of(step, channel.iteration);
  channel.current.nbytes = nbytes;
  if (nbytes == 0) return complete(index, now);
  moved_[s] += nbytes;
  const Use* first = prepared_.uses.data() + prepared_.plans[s].first_use;
  sharing_.start(index, {first, first + prepared_.plans[s].nuses}, prepared_.plans[s].limit, nbytes, now);
  channel.state = State::kMoving;
}

void Simulation::complete(uint32_t index, double now) {
  Channel& channel = channels_[index];
  const StepEntry& step = program_.step(channel.first_step + channel.position);
  steps_run_++;
  channel.free_at = now;
  makespan_us_ = std::max(makespan_us_, now);
  busy_[channel.rank].last = now;
  // Without a trace any number but kNoRecord says that the channel has run.
  channel.last_record = trace_ ? uint32_t(records_.size()) : 0;
  if (trace_) {
    channel.current.end_us = now;
    records_.push_back(channel.current);
  }
  const uint32_t record = channel.last_record;
  const uint64_t iteration = channel.iteration;
  const SyncEntry* signals = program_.syncs(step.first_sync) + step.nwaits;
  if (channel.watched) channel.progress.push_back({now, record});
  channel.position++;
  try_start(index);
  for (u32 i = 0; i < step.nsignals; i++) signal(channel.rank, signals[i], iteration, {now, record});
  if (channel.watchers.empty()) return;
  std::vector<uint32_t> watchers;
  watchers.swap(channel.watchers);
  for (uint32_t c : watchers) try_start(c);
}

void Simulation::signal(uint32_t rank, const SyncEntry& sync, uint64_t iteration, Stamp stamp) {
  const ConnectionEntry& entry = program_.connection(sync.connection);
  Connection& connection = connections_[sync.connection];
  uint64_t sequence = iteration * entry.uses + sync.use;
  stamp.time += prepared_.machine.connections[sync.connection].latency_us;
  Signals& mine = rank == entry.dst ? connection.taken : connection.published;
  if (mine.count() != sequence) throw std::logic_error("signals of a connection out of order");
  // A reader may still look at what it has not taken, a writer at the last `slots` uses given back.
  uint64_t oldest = rank == entry.dst ? (sequence > entry.slots ? sequence - entry.slots : 0) : connection.taken.count();
  mine.push(stamp, oldest);
  uint32_t& waiting = rank == entry.dst ? connection.writer_waits : connection.reader_waits;
  if (waiting == kNobody) return;
  uint32_t c = waiting;
  waiting = kNobody;
  try_start(c);
}

double Simulation::longest_rank_us() const {
  double longest = 0;
  for (const Span& span : busy_) longest = std::max(longest, span.last - span.first);
  return longest;
}

std::vector<double> Simulation::link_bytes() const {
  std::vector<double> total(prepared_.machine.link_rate.size(), 0.0);
  for (size_t s = 0; s < prepared_.plans.size(); s++)
    for (uint32_t u = prepared_.first_link_use[s]; u < prepared_.first_link_use[s + 1]; u++)
      total[prepared_.link_uses[u].resource] += prepared_.link_uses[u].coefficient * moved_[s];
  return total;
}

void Simulation::fail_deadlocked() const {
  std::string message = "the program deadlocks:";
  int named = 0;
  for (uint32_t c = 0; c < channels_.size() && named < 4; c++) {
    const Channel& channel = channels_[c];
    if (channel.state == State::kDone) continue;
    named++;
    message += " rank " + std::to_string(channel.rank) + " channel " + std::to_string(c - program_.rank(channel.rank).first_channel) +
               " step " + std::to_string(channel.position) + " iteration " + std::to_string(channel.iteration) + " waits";
    for (size_t k = 0; k < connections_.size(); k++) {
      if (connections_[k].reader_waits == c) message += " for a chunk on c" + std::to_string(k);
      if (connections_[k].writer_waits == c) message += " for a free slot of c" + std::to_string(k);
    }
    for (uint32_t o = 0; o < channels_.size(); o++)
      for (uint32_t w : channels_[o].watchers)
        if (w == c) message += " after channel " + std::to_string(o - program_.rank(channel.rank).first_channel);
    message += ";";
  }
  message.pop_back();
  throw std::runtime_error(message);
}

}  // namespace blinkcoll::simulator
