#include "prepared.h"

#include <algorithm>
#include <stdexcept>

namespace blinkcoll::simulator {

Prepared::Prepared(ProgramView program, const Machine& machine) : program(program), machine(machine), precedence(program, machine) {
  capacity = machine.link_rate;
  capacity.insert(capacity.end(), machine.memory_rate.begin(), machine.memory_rate.end());
  plan_steps();
  drop_resources_that_never_bind();
}

void Prepared::plan_steps() {
  const ProgramHeader& header = program.header();
  plans.resize(header.nsteps);
  first_link_use.assign(1, 0);
  std::vector<double> load(capacity.size(), 0.0);
  for (u32 rank = 0; rank < header.nranks; rank++) {
    const RankEntry& entry = program.rank(rank);
    for (u32 c = entry.first_channel; c < entry.first_channel + entry.nchannels; c++) {
      const ChannelEntry& channel = program.channel(c);
      for (u32 s = channel.first_step; s < channel.first_step + channel.nsteps; s++) {
        plans[s].first_use = u32(uses.size());
        plan_step(rank, program.step(s), load);
        plans[s].nuses = u32(uses.size()) - plans[s].first_use;
      }
    }
  }
}

// Steps are visited in the order of their table, so plans, uses and link_uses grow in step. `load` is all zero between
// steps: on a cluster there are thousands of links, of which a step uses a few.
void Prepared::plan_step(uint32_t rank, const StepEntry& step, std::vector<double>& load) {
  const uint32_t nlinks = uint32_t(machine.link_rate.size()), nranks = program.header().nranks;
  std::vector<uint32_t> loaded;
  auto add = [&](uint32_t resource, double coefficient) {
    if (load[resource] == 0) loaded.push_back(resource);
    load[resource] += coefficient;
  };
  StepPlan& plan = plans[first_link_use.size() - 1];
  double pull_us = 0;
  auto cross = [&](const Route& route) {
    for (uint32_t link : route.links) add(link, 1 / route.efficiency);
  };
  auto pair = [&](uint32_t src, uint32_t dst) -> const Route& {
    if (machine.pairs.empty()) throw std::runtime_error("the machine has no routes for operands in a peer's buffer");
    return machine.pairs[size_t(src) * nranks + dst];
  };
  const OperandEntry* operands = program.operands(step.first_operand);
  for (u32 i = 0; i < u32(step.nsrcs) + step.ndsts; i++) {
    const OperandEntry& operand = operands[i];
    const bool source = i < step.nsrcs;
    if (operand.buffer == kMulticast) {
      if (machine.group_out.empty()) throw std::runtime_error("the machine has no switches for operands of all ranks");
      const auto &one = source ? machine.group_back : machine.group_out, &all = source ? machine.group_out : machine.group_back;
      for (const Use& use : one[rank]) add(use.resource, use.coefficient);
      for (uint32_t r = 0; r < nranks; r++) {
        for (const Use& use : all[r]) add(use.resource, use.coefficient);
        add(nlinks + r, 1);
      }
      if (source) pull_us = std::max(pull_us, 2 * machine.group_latency_us);
      continue;
    }
    uint32_t where = operand.index;
    if (operand.buffer == kSlot) {
      const ConnectionEntry& c = program.connection(operand.index);
      where = c.dst;  // slots lie at the reader
      if (rank != c.dst && source) throw std::runtime_error("a step reads a slot of a connection that its rank writes");
      const Route& route = machine.connections[operand.index];
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
  const SyncEntry* syncs = program.syncs(step.first_sync);
  // The dearest synchronisation and the slowest rate of the protocols it takes part in.
  const StepCost& alone = machine.costs.back();
  plan.limit = step.op == kReduce ? alone.reduce_rate : alone.copy_rate;
  plan.delay_us = 0;
  for (u32 i = 0; i < u32(step.nwaits) + step.nsignals; i++) {
    const StepCost& cost = machine.costs[syncs[i].connection];
    plan.limit = std::min(plan.limit, step.op == kReduce ? cost.reduce_rate : cost.copy_rate);
    plan.delay_us = std::max(plan.delay_us, cost.busy_us);
  }
  if (step.nafters && !step.nwaits && !step.nsignals) plan.delay_us = alone.busy_us;
  plan.delay_us += pull_us;
  std::sort(loaded.begin(), loaded.end());
  for (uint32_t r : loaded) {
    uses.push_back({r, load[r]});
    if (r < nlinks) link_uses.push_back({r, load[r]});
    load[r] = 0;
  }
  first_link_use.push_back(uint32_t(link_uses.size()));
}

// A resource that could serve the hungriest step of every channel at once never slows anybody down.
void Prepared::drop_resources_that_never_bind() {
  std::vector<double> demand(capacity.size(), 0.0), most(capacity.size(), 0.0);
  std::vector<uint32_t> seen;
  const ProgramHeader& header = program.header();
  for (u32 c = 0; c < header.nchannels; c++) {
    const ChannelEntry& channel = program.channel(c);
    seen.clear();
    for (u32 s = channel.first_step; s < channel.first_step + channel.nsteps; s++)
      for (u32 u = plans[s].first_use; u < plans[s].first_use + plans[s].nuses; u++) {
        double& m = most[uses[u].resource];
        if (m == 0) seen.push_back(uses[u].resource);
        m = std::max(m, uses[u].coefficient * plans[s].limit);
      }
    for (uint32_t r : seen) {
      demand[r] += most[r];
      most[r] = 0;
    }
  }
  std::vector<Use> kept;
  for (StepPlan& plan : plans) {
    uint32_t first = uint32_t(kept.size());
    for (u32 u = plan.first_use; u < plan.first_use + plan.nuses; u++)
      if (demand[uses[u].resource] > capacity[uses[u].resource]) kept.push_back(uses[u]);
    plan.first_use = first;
    plan.nuses = uint32_t(kept.size()) - first;
    plan.fastest = plan.limit;
    for (u32 u = first; u < first + plan.nuses; u++) plan.fastest = std::min(plan.fastest, capacity[kept[u].resource] / kept[u].coefficient);
  }
  uses = std::move(kept);
}

}  // namespace blinkcoll::simulator
