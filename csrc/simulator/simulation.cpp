#include "simulation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace blinkcoll::simulator {
namespace {

// Events this close together are taken as simultaneous, so that symmetric programs share one computation of rates.
constexpr double kTogetherUs = 1e-6;

}  // namespace

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

// -- what never changes from run to run --------------------------------------------------------------------------

Simulation::Simulation(ProgramView program, const Machine& machine) : program_(program), machine_(machine) {
  capacity_ = machine.link_rate;
  capacity_.insert(capacity_.end(), machine.memory_rate.begin(), machine.memory_rate.end());
  plan_steps();
  drop_resources_that_never_bind();
}

void Simulation::plan_steps() {
  const ProgramHeader& header = program_.header();
  plans_.resize(header.nsteps);
  first_link_use_.assign(1, 0);
  std::vector<double> load(capacity_.size(), 0.0);
  for (u32 rank = 0; rank < header.nranks; rank++) {
    const RankEntry& entry = program_.rank(rank);
    for (u32 c = entry.first_channel; c < entry.first_channel + entry.nchannels; c++) {
      const ChannelEntry& channel = program_.channel(c);
      for (u32 s = channel.first_step; s < channel.first_step + channel.nsteps; s++) {
        plans_[s].first_use = u32(uses_.size());
        plan_step(rank, program_.step(s), load);
        plans_[s].nuses = u32(uses_.size()) - plans_[s].first_use;
      }
    }
  }
}

// Steps are visited in the order of their table, so plans_, uses_ and link_uses_ grow in step. `load` is all zero between
// steps: on a cluster there are thousands of links, of which a step uses a few.
void Simulation::plan_step(uint32_t rank, const StepEntry& step, std::vector<double>& load) {
  const uint32_t nlinks = uint32_t(machine_.link_rate.size()), nranks = program_.header().nranks;
  std::vector<uint32_t> loaded;
  auto add = [&](uint32_t resource, double coefficient) {
    if (load[resource] == 0) loaded.push_back(resource);
    load[resource] += coefficient;
  };
  StepPlan& plan = plans_[first_link_use_.size() - 1];
  double pull_us = 0;
  auto cross = [&](const Route& route) {
    for (uint32_t link : route.links) add(link, 1 / route.efficiency);
  };
  auto pair = [&](uint32_t src, uint32_t dst) -> const Route& {
    if (machine_.pairs.empty()) throw std::runtime_error("the machine has no routes for operands in a peer's buffer");
    return machine_.pairs[size_t(src) * nranks + dst];
  };
  const OperandEntry* operands = program_.operands(step.first_operand);
  for (u32 i = 0; i < u32(step.nsrcs) + step.ndsts; i++) {
    const OperandEntry& operand = operands[i];
    const bool source = i < step.nsrcs;
    if (operand.buffer == kMulticast) {
      if (machine_.group_out.empty()) throw std::runtime_error("the machine has no switches for operands of all ranks");
      const auto &one = source ? machine_.group_back : machine_.group_out, &all = source ? machine_.group_out : machine_.group_back;
      for (const Use& use : one[rank]) add(use.resource, use.coefficient);
      for (uint32_t r = 0; r < nranks; r++) {
        for (const Use& use : all[r]) add(use.resource, use.coefficient);
        add(nlinks + r, 1);
      }
      if (source) pull_us = std::max(pull_us, 2 * machine_.group_latency_us);
      continue;
    }
    uint32_t where = operand.index;
    if (operand.buffer == kSlot) {
      const ConnectionEntry& c = program_.connection(operand.index);
      where = c.dst;  // slots lie at the reader
      if (rank != c.dst && source) throw std::runtime_error("a step reads a slot of a connection that its rank writes");
      const Route& route = machine_.connections[operand.index];
      if (rank != c.dst) cross(route);
      if (!route.read_links.empty()) {
        if (source)
          for (uint32_t link : route.read_links) add(link, 1 / route.efficiency);
        if (source) pull_us = std::max(pull_us, route.read_us);
        continue;  // neither device's memory holds it
      }
    } else if (where != rank) {
      const Route& route = source ? pair(where, rank) : pair(rank, where);
      cross(route);
      if (source) pull_us = std::max(pull_us, 2 * route.latency_us);  // the request travels too
    }
    add(nlinks + where, 1);
  }
  const SyncEntry* syncs = program_.syncs(step.first_sync);
  // The dearest synchronisation and the slowest rate of the protocols it takes part in.
  const StepCost& alone = machine_.costs.back();
  plan.limit = step.op == kReduce ? alone.reduce_rate : alone.copy_rate;
  plan.delay_us = 0;
  for (u32 i = 0; i < u32(step.nwaits) + step.nsignals; i++) {
    const StepCost& cost = machine_.costs[syncs[i].connection];
    plan.limit = std::min(plan.limit, step.op == kReduce ? cost.reduce_rate : cost.copy_rate);
    plan.delay_us = std::max(plan.delay_us, cost.busy_us);
  }
  if (step.nafters && !step.nwaits && !step.nsignals) plan.delay_us = alone.busy_us;
  plan.delay_us += pull_us;
  std::sort(loaded.begin(), loaded.end());
  for (uint32_t r : loaded) {
    uses_.push_back({r, load[r]});
    if (r < nlinks) link_uses_.push_back({r, load[r]});
    load[r] = 0;
  }
  first_link_use_.push_back(uint32_t(link_uses_.size()));
}

// A resource that could serve the hungriest step of every channel at once never slows anybody down.
void Simulation::drop_resources_that_never_bind() {
  std::vector<double> demand(capacity_.size(), 0.0), most(capacity_.size(), 0.0);
  std::vector<uint32_t> seen;
  const ProgramHeader& header = program_.header();
  for (u32 c = 0; c < header.nchannels; c++) {
    const ChannelEntry& channel = program_.channel(c);
    seen.clear();
    for (u32 s = channel.first_step; s < channel.first_step + channel.nsteps; s++)
      for (u32 u = plans_[s].first_use; u < plans_[s].first_use + plans_[s].nuses; u++) {
        double& m = most[uses_[u].resource];
        if (m == 0) seen.push_back(uses_[u].resource);
        m = std::max(m, uses_[u].coefficient * plans_[s].limit);
      }
    for (uint32_t r : seen) {
      demand[r] += most[r];
      most[r] = 0;
    }
  }
  std::vector<Use> kept;
  for (StepPlan& plan : plans_) {
    uint32_t first = uint32_t(kept.size());
    for (u32 u = plan.first_use; u < plan.first_use + plan.nuses; u++)
      if (demand[uses_[u].resource] > capacity_[uses_[u].resource]) kept.push_back(uses_[u]);
    plan.first_use = first;
    plan.nuses = uint32_t(kept.size()) - first;
  }
  uses_ = std::move(kept);
}

// -- a run ---------------------------------------------------------------------------------------------------------

void Simulation::reset(const Launch& launch) {
  const ProgramHeader& header = program_.header();
  partition_ = {launch.count, launch.chunk_bytes, launch.elem_size, header.nshards, header.nshares, header.equal_shards, program_.cumulative(), launch.bounds, nullptr};
  elem_size_ = launch.elem_size;
  trace_ = launch.trace;
  loops_.resize(header.nshares);
  ranges_.clear();
  for (u32 share = 0; share < header.nshares; share++) {
    loops_[share] = partition_.loop_of(share);
    for (u32 shard = 0; shard < header.nshards; shard++) ranges_.push_back(partition_.share_range(shard, share));
  }
  connections_.resize(header.nconnections);
  for (u32 c = 0; c < header.nconnections; c++) {
    uint32_t slots = program_.connection(c).slots;
    connections_[c].published.reset(slots);
    connections_[c].taken.reset(slots + 1);
    connections_[c].reader_waits = connections_[c].writer_waits = kNobody;
  }
  channels_.resize(header.nchannels);
  for (u32 rank = 0; rank < header.nranks; rank++) {
    const RankEntry& entry = program_.rank(rank);
    for (u32 c = entry.first_channel; c < entry.first_channel + entry.nchannels; c++) {
      const ChannelEntry& made = program_.channel(c);
      Channel& channel = channels_[c];
      channel = {rank, made.first_step, made.nsteps, made.watched, 0, 0, 0, State::kBlocked, 0, kNoRecord, {}, {}, {}};
      for (u32 s = 0; s < made.nsteps; s++)
        channel.iterations = std::max<uint64_t>(channel.iterations, loops_[program_.step(made.first_step + s).share].iterations);
    }
  }
  moved_.assign(header.nsteps, 0.0);
  records_.clear();
  queue_ = EventQueue(header.nchannels);
  sharing_ = FairSharing(capacity_, header.nchannels);
  makespan_us_ = 0;
  steps_run_ = 0;
  busy_.assign(header.nranks, {std::numeric_limits<double>::infinity(), 0});
}

bool Simulation::run(const Launch& launch) {
  reset(launch);
  // Looking at what is left costs about as much as so many steps.
  const uint64_t between_looks = std::isinf(launch.give_up_us) ? std::numeric_limits<uint64_t>::max() : plans_.size() + link_uses_.size();
  uint64_t next_look = std::isinf(launch.give_up_us) ? between_looks : 0;
  for (uint32_t c = 0; c < channels_.size(); c++) try_start(c);
  while (!queue_.empty()) {
    double now = queue_.next_time();
    if (steps_run_ >= next_look) {
      if (now + least_left_us() > launch.give_up_us) return false;
      next_look = steps_run_ + between_looks;
    }
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

// What the busiest link still has to carry, and what the busiest channel still has to do, one step after the other. Steps
// that have begun count as done, so no run takes less from now on.
double Simulation::least_left_us() const {
  std::vector<double> left_on(machine_.link_rate.size(), 0.0);
  double most = 0;
  for (const Channel& channel : channels_) {
    double busy_us = 0;
    for (u32 position = 0; position < channel.nsteps; position++) {
      const uint32_t s = channel.first_step + position;
      const StepEntry& step = program_.step(s);
      const uint64_t begun = channel.iteration + (position <= channel.position);
      const uint64_t all = loops_[step.share].iterations;
      if (begun < all) busy_us += double(all - begun) * plans_[s].delay_us;
      if (step.op == kNop) continue;
      const double left = double(ranges_[step.share * size_t(partition_.nshards) + step.shard].length) * elem_size_ - moved_[s];
      busy_us += left / plans_[s].limit;
      for (uint32_t u = first_link_use_[s]; u < first_link_use_[s + 1]; u++) left_on[link_uses_[u].resource] += link_uses_[u].coefficient * left;
    }
    most = std::max(most, busy_us);
  }
  for (size_t link = 0; link < left_on.size(); link++) most = std::max(most, left_on[link] / machine_.link_rate[link]);
  return most;
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
  queue_.set(index, last.time + plans_[s].delay_us);
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

void Simulation::begin(uint32_t index, double now) {
  Channel& channel = channels_[index];
  const uint32_t s = channel.first_step + channel.position;
  const StepEntry& step = program_.step(s);
  channel.current.start_us = now;
  busy_[channel.rank].first = std::min(busy_[channel.rank].first, now - plans_[s].delay_us);
  double nbytes = 0;
  if (step.op != kNop)
    nbytes = double(Partition::chunk_of(ranges_[step.share * size_t(partition_.nshards) + step.shard], loops_[step.share].chunk, channel.iteration).length) * elem_size_;
  channel.current.nbytes = nbytes;
  if (nbytes == 0) return complete(index, now);
  moved_[s] += nbytes;
  const Use* first = uses_.data() + plans_[s].first_use;
  sharing_.start(index, {first, first + plans_[s].nuses}, plans_[s].limit, nbytes, now);
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
  stamp.time += machine_.connections[sync.connection].latency_us;
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
  std::vector<double> total(machine_.link_rate.size(), 0.0);
  for (size_t s = 0; s < plans_.size(); s++)
    for (uint32_t u = first_link_use_[s]; u < first_link_use_[s + 1]; u++)
      total[link_uses_[u].resource] += link_uses_[u].coefficient * moved_[s];
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
