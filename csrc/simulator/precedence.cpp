#include "precedence.h"

#include <algorithm>

namespace blinkcoll::simulator {

Precedence::Precedence(ProgramView program, const Machine& machine) : program_(program) {
  const ProgramHeader& header = program.header();
  channel_end_.resize(header.nsteps);
  for (u32 c = 0; c < header.nchannels; c++) {
    const ChannelEntry& channel = program.channel(c);
    std::fill_n(channel_end_.begin() + channel.first_step, channel.nsteps, channel.first_step + channel.nsteps);
  }
  link_signals_to_waits(machine);
  sort_steps();
}

// Data only: a reader's wait for use u of a connection follows the writer's signal of it, in the same iteration.
void Precedence::link_signals_to_waits(const Machine& machine) {
  const ProgramHeader& header = program_.header();
  std::vector<uint32_t> first_use(header.nconnections + 1, 0);
  for (u32 c = 0; c < header.nconnections; c++) first_use[c + 1] = first_use[c] + program_.connection(c).uses;
  constexpr uint32_t kNobody = 0xffffffffu;
  std::vector<uint32_t> reader(first_use.back(), kNobody);
  auto each_sync = [&](auto&& visit) {
    for (u32 rank = 0; rank < header.nranks; rank++) {
      const RankEntry& entry = program_.rank(rank);
      for (u32 c = entry.first_channel; c < entry.first_channel + entry.nchannels; c++) {
        const ChannelEntry& channel = program_.channel(c);
        for (u32 s = channel.first_step; s < channel.first_step + channel.nsteps; s++) visit(rank, s, program_.step(s), program_.syncs(program_.step(s).first_sync));
      }
    }
  };
  each_sync([&](u32 rank, u32 s, const StepEntry& step, const SyncEntry* syncs) {
    for (u32 i = 0; i < step.nwaits; i++)
      if (program_.connection(syncs[i].connection).dst == rank && syncs[i].use < program_.connection(syncs[i].connection).uses) reader[first_use[syncs[i].connection] + syncs[i].use] = s;
  });
  first_follower_.assign(1, 0);
  each_sync([&](u32 rank, u32, const StepEntry& step, const SyncEntry* syncs) {
    for (u32 i = step.nwaits; i < u32(step.nwaits) + step.nsignals; i++) {
      if (program_.connection(syncs[i].connection).dst == rank) continue;
      const uint32_t waits = reader[first_use[syncs[i].connection] + syncs[i].use];
      if (waits != kNobody) followers_.push_back({waits, machine.connections[syncs[i].connection].latency_us});
    }
    first_follower_.push_back(uint32_t(followers_.size()));
  });
}

void Precedence::sort_steps() {
  const uint32_t nsteps = program_.header().nsteps;
  std::vector<uint32_t> before(nsteps, 0);  // steps that it follows and that are not sorted yet
  for (uint32_t s = 0; s < nsteps; s++) {
    if (s + 1 < channel_end_[s]) before[s + 1]++;
    for (uint32_t f = first_follower_[s]; f < first_follower_[s + 1]; f++) before[followers_[f].step]++;
  }
  for (uint32_t s = 0; s < nsteps; s++)
    if (before[s] == 0) order_.push_back(s);
  for (size_t i = 0; i < order_.size(); i++) {
    const uint32_t s = order_[i];
    if (s + 1 < channel_end_[s] && --before[s + 1] == 0) order_.push_back(s + 1);
    for (uint32_t f = first_follower_[s]; f < first_follower_[s + 1]; f++)
      if (--before[followers_[f].step] == 0) order_.push_back(followers_[f].step);
  }
}

Precedence::Ends Precedence::ends(const std::vector<Least>& least, const std::vector<Loop>& loops) const {
  auto iterations = [&](uint32_t step) { return loops[program_.step(step).share].iterations; };
  Ends made{std::vector<double>(least.size(), 0.0), std::vector<double>(least.size(), 0.0)};
  auto &head_us = made.head_us, &tail_us = made.tail_us;
  for (uint32_t s : order_) {
    const bool runs = iterations(s) > 0;
    const double end_us = head_us[s] + (runs ? least[s].first_us : 0);
    if (s + 1 < channel_end_[s]) head_us[s + 1] = std::max(head_us[s + 1], end_us);
    for (uint32_t f = first_follower_[s]; runs && f < first_follower_[s + 1]; f++) {
      double& waits_us = head_us[followers_[f].step];
      waits_us = std::max(waits_us, end_us + followers_[f].latency_us);
    }
  }
  for (auto place = order_.rbegin(); place != order_.rend(); ++place) {
    const uint32_t s = *place;
    if (iterations(s) == 0) continue;
    // The next step of the channel that runs as often: those in between end sooner.
    uint32_t next = s + 1;
    while (next < channel_end_[s] && iterations(next) < iterations(s)) next++;
    if (next < channel_end_[s]) tail_us[s] = std::max(tail_us[s], least[next].last_us + tail_us[next]);
    for (uint32_t f = first_follower_[s]; f < first_follower_[s + 1]; f++) {
      const Follower& follower = followers_[f];
      tail_us[s] = std::max(tail_us[s], follower.latency_us + least[follower.step].last_us + tail_us[follower.step]);
    }
  }
  return made;
}

}  // namespace blinkcoll::simulator
