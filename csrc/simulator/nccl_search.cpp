#include "simulator/nccl_search.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace blinkcoll::nccl {
namespace {

// Bandwidths are kept to the nearest MB/s, so that what is given back restores what was there.
float subtract(float have, float take) { return roundf((have - take) * 1000) / 1000; }

}  // namespace

Search::Search(Machine machine, Rules rules) : machine_(std::move(machine)), rules_(rules), used_(size_t(machine_.ngpus), 0) {
  const int nlinks = int(machine_.links.size());
  if (machine_.ngpus < 1) throw std::invalid_argument("nccl search: a machine needs at least one GPU");
  if (machine_.paths.size() != size_t(machine_.nvertices()) * size_t(machine_.nvertices())) throw std::invalid_argument("nccl search: expected one path per ordered pair of vertices");
  for (const Path& p : machine_.paths)
    for (const PathStep& s : p.steps)
      if (s.link < 0 || s.link >= nlinks || s.reverse >= nlinks) throw std::invalid_argument("nccl search: a path names a link that is not there");
}

int Search::run(Graph& trial, Graph& best, int steps) {
  if (trial.max_channels < 1 || trial.max_channels > 63) throw std::invalid_argument("nccl search: max_channels must be 1 to 63");
  trial.order.assign(size_t(trial.max_channels) * size_t(machine_.ngpus), 0);
  trial.nchannels = 0;
  trial_ = &trial;
  best_ = &best;
  left_ = steps;
  start_channel();
  return left_;
}

// -- bandwidth ---------------------------------------------------------------------------------------------------

// Take gb_s from the first nsteps links of a path (give back where negative); stops at a link that has too little and
// returns how many were taken.
int Search::debit(const Path& path, int nsteps, float gb_s) {
  const float pcie = path.overhead ? gb_s * rules_.overhead_mul / rules_.overhead_div : gb_s;
  for (int s = 0; s < nsteps; s++) {
    const PathStep& step = path.steps[size_t(s)];
    const float forward = step.pcie ? pcie : gb_s;
    const float back = step.reverse >= 0 ? forward : 0;
    float& link = machine_.links[size_t(step.link)];
    if (link < forward || (back != 0 && machine_.links[size_t(step.reverse)] < back)) return s;
    link = subtract(link, forward);
    if (back != 0) machine_.links[size_t(step.reverse)] = subtract(machine_.links[size_t(step.reverse)], back);
  }
  return nsteps;
}

// Take `times` channels' bandwidth from `from` to `to`, all links or none; false where the path is too far or too full.
bool Search::take(int from, int to, float times) {
  const Path& way = path(from, to);
  if (way.steps.empty() && from != to) return false;
  // A refusal for distance applies to taking one channel's worth only: NCCL compares its multiplier with 1.
  if (times == 1) {
    if (way.type > trial_->type_intra) return false;
    if (rules_.both_ways && trial_->pattern <= kTree && path(to, from).type > trial_->type_intra) return false;
  }
  const float gb_s = trial_->bw_intra * times;
  const int all = int(way.steps.size());
  const int got = debit(way, all, gb_s);
  if (got < all) {
    debit(way, got, -gb_s);
    return false;
  }
  trial_->nhops += int(times * float(all));
  return true;
}

void Search::give_back(int from, int to, float times) {
  const Path& way = path(from, to);
  debit(way, int(way.steps.size()), -trial_->bw_intra * times);
  trial_->nhops -= int(times * float(way.steps.size()));
}

// -- which graph is better -------------------------------------------------------------------------------------------

bool Search::better() const {
  const Graph &t = *trial_, &b = *best_;
  if (t.nchannels < t.min_channels) return false;
  if (t.pattern == kNvls) {
    if (t.nchannels > b.nchannels && t.nchannels <= machine_.ngpus) return true;
    return float(t.nchannels) * t.bw_inter > float(b.nchannels) * b.bw_inter;
  }
  const float now = float(t.nchannels) * t.bw_intra, before = float(b.nchannels) * b.bw_intra;
  if (now != before) return now > before;
  if (rules_.same_pattern_hops && t.pattern != b.pattern) return false;
  return t.nhops < b.nhops;
}

// -- the walk --------------------------------------------------------------------------------------------------------

// The GPUs not yet in the channel, best first: bandwidth (whole GB/s), fewer links, then the index after this GPU's.
void Search::next_gpus(int gpu, std::vector<int>& next) const {
  const int n = machine_.ngpus;
  const uint64_t channel = uint64_t(1) << trial_->nchannels;
  std::vector<std::tuple<int, int, int>> scores;
  for (int i = 1; i < n; i++) {
    const int other = (gpu + i) % n;
    const Path& way = path(gpu, other);
    if (way.steps.empty() || (used_[size_t(other)] & channel)) continue;
    scores.emplace_back(-int(way.gb_s), int(way.steps.size()), i);
  }
  std::sort(scores.begin(), scores.end());
  next.clear();
  for (const auto& score : scores) next.push_back((gpu + std::get<2>(score)) % n);
  if (!machine_.nvswitch || !rules_.nvswitch_neighbours) return;

  const int after = (gpu + 1) % n, before = (gpu - 1 + n) % n;
  std::vector<int> wanted;
  if (trial_->pattern == kRing) wanted = {after, before};
  else if (trial_->pattern == kSplitTree || trial_->pattern == kBalancedTree) wanted = {before, after};
  else wanted = {after};
  if (after == before) wanted.resize(1);
  size_t found = 0;
  for (int peer : wanted) {
    auto at = std::find(next.begin(), next.end(), peer);
    if (at == next.end()) continue;
    std::rotate(next.begin(), at, at + 1);
    found++;
  }
  next.resize(found);
}

// Begin the next channel: the GPUs in order for the first one, the channel before for the others, and unless all
// channels are to be the same, then every other way.
void Search::start_channel() {
  if (trial_->pattern == kNvls) {
    start_at(trial_->nchannels, kFree);
    return;
  }
  if (trial_->nchannels == 0) start_at(0, kPci);
  else start_at(replayed(0), kReplay);
  if (trial_->same_channels && trial_->nchannels > 0) return;
  for (int gpu = 0; gpu < machine_.ngpus; gpu++) start_at(gpu, kFree);
}

void Search::start_at(int gpu, Order order) {
  const uint64_t channel = uint64_t(1) << trial_->nchannels;
  used_[size_t(gpu)] ^= channel;
  visit(gpu, 0, order);
  used_[size_t(gpu)] ^= channel;
}

void Search::hop(int from, int to, int position, Order order) {
  if (!take(from, to, 1)) return;
  const uint64_t channel = uint64_t(1) << trial_->nchannels;
  used_[size_t(to)] ^= channel;
  visit(to, position, order);
  used_[size_t(to)] ^= channel;
  give_back(from, to, 1);
}

// One step of the search: the channel has reached `gpu` as its position-th.
void Search::visit(int gpu, int position, Order order) {
  if (left_ <= 0) return;
  left_--;
  const int last = machine_.ngpus - 1;
  trial_->order[size_t(trial_->nchannels) * size_t(machine_.ngpus) + size_t(position)] = gpu;
  if (trial_->pattern == kNvls) {
    pull_from_switch(gpu);
  } else if (position < last) {
    if (order == kPci) hop(gpu, position + 1, position + 1, order);
    else if (order == kReplay) hop(gpu, replayed(position + 1), position + 1, order);
    else {
      std::vector<int> next;
      next_gpus(gpu, next);
      for (int other : next) hop(gpu, other, position + 1, order);
    }
  } else if (trial_->pattern == kRing) {
    close_ring(gpu);
  } else {
    finish_channel();
  }
}

void Search::close_ring(int gpu) {
  const int first = trial_->order[size_t(trial_->nchannels) * size_t(machine_.ngpus)];
  if (!take(gpu, first, 1)) return;
  finish_channel();
  give_back(gpu, first, 1);
}

// The channel is complete (one step more): keep the graph if it is better, then try for another channel.
void Search::finish_channel() {
  if (left_ <= 0) return;
  left_--;
  trial_->nchannels++;
  if (better()) {
    *best_ = *trial_;
    if (trial_->nchannels == trial_->max_channels) left_ = -1;
  }
  if (trial_->nchannels < trial_->max_channels) start_channel();
  trial_->nchannels--;
}

// An NVLS channel: every GPU gets its data from the switch and gives its own to it, the head twice as much.
void Search::pull_from_switch(int head) {
  const int nvswitch = machine_.ngpus, n = machine_.ngpus;
  int down = 0, up = 0;
  while (down < n && take(nvswitch, down, down == head ? 2 : 1)) down++;
  if (down == n) {
    while (up < n && take(up, nvswitch, up == head ? 2 : 1)) up++;
    if (up == n) finish_channel();
  }
  while (up > 0) up--, give_back(up, nvswitch, up == head ? 2 : 1);
  while (down > 0) down--, give_back(nvswitch, down, down == head ? 2 : 1);
}

}  // namespace blinkcoll::nccl
