// Few trees that carry a rate: one tree after the other is peeled off the capacities, each as wide as leaves enough for
// the rest. By the theorems of Edmonds (1973) and of Tutte and Nash-Williams (1961) trees of rate x[r] from each root r
// fit in the capacities exactly where every row (a cut, a partition) carries its demand; a tree that crosses a row more
// often than its demand asks uses up slack. Slack only shrinks, so a tree that does not fit never fits again, and the list
// of those that do is short after a few steps. Greedy with random choices, restarted. Floats only propose: the caller
// weighs the trees found exactly.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

namespace blinkcoll::packing {

// Which arcs (or edges) a tree uses, the number of its root, and how deep it is.
struct PeelTree {
  uint64_t arcs;
  int root;
  int depth;
};

// Arcs that together have to carry demand[r] times the rate of root r, for all r.
struct PeelRow {
  uint64_t arcs;
  std::vector<int> demand;
};

// What is looked for: fewer than `most` trees, none deeper than `depth`; and when to stop: at `enough` trees, after so many
// looks at a row, or at a time (only that depends on how fast the machine is).
struct PeelLimits {
  int most, enough, depth;
  long long work;
  double seconds;
};

class Peeler {
 public:
  Peeler(std::vector<double> capacity, std::vector<PeelRow> rows, std::vector<PeelTree> trees)
      : capacity_(std::move(capacity)), rows_(std::move(rows)), trees_(std::move(trees)), nrows_(rows_.size()), excess_(trees_.size() * nrows_) {
    for (size_t t = 0; t < trees_.size(); t++)
      for (size_t f = 0; f < nrows_; f++) {
        int over = count(rows_[f].arcs & trees_[t].arcs) - rows_[f].demand[trees_[t].root];
        excess_[t * nrows_ + f] = (signed char)over, most_excess_ = std::max(most_excess_, over);
      }
  }

  // Numbers of trees that carry these rates, as few as were found; none where nothing was.
  std::vector<int> solve(const std::vector<double>& rates, const PeelLimits& limits, unsigned seed) {
    best_ = limits.most, draw_.seed(seed), found_.clear();
    deadline_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(limits.seconds));
    State start{capacity_, {}, rates, {}};
    std::vector<int> every;
    for (size_t f = 0; f < nrows_; f++) {
      double slack = 0;
      for (uint64_t arcs = rows_[f].arcs; arcs; arcs &= arcs - 1) slack += capacity_[lowest(arcs)];
      for (size_t r = 0; r < rates.size(); r++) slack -= rows_[f].demand[r] * rates[r];
      if (slack < -kTiny) return {};
      start.slack.push_back(slack), every.push_back(int(f));
    }
    std::vector<std::pair<int, double>> all;
    for (size_t t = 0; t < trees_.size(); t++)
      if (trees_[t].depth <= limits.depth) all.push_back({int(t), rates[trees_[t].root]});
    keep_fitting(start, all, every);
    work_ = limits.work;
    while (best_ > limits.enough && needs(start) < best_ && !over()) {
      work_ -= (long long)start.alive.size() + 64;
      chosen_.clear(), nodes_ = 0;
      dive(start);
    }
    return found_;
  }

 private:
  using Clock = std::chrono::steady_clock;
  // Rates are in units of the least capacity or so; what is left over below this is rounding.
  static constexpr double kTiny = 1e-9;
  // In its last levels a dive tries several trees: they are cheap there, and the choice matters.
  static constexpr int kLastLevels = 3, kLastTries = 6, kMostNodes = 300;

  struct State {
    std::vector<double> left;                   // of each arc
    std::vector<double> slack;                  // of each row
    std::vector<double> rates;                  // of each root, to be carried yet
    std::vector<std::pair<int, double>> alive;  // trees that fit, and how wide
  };

  static int lowest(uint64_t bits) { return __builtin_ctzll(bits); }
  static int count(uint64_t bits) {
    int n = 0;
    for (; bits; bits &= bits - 1) n++;
    return n;
  }
  bool over() const { return work_ <= 0 || Clock::now() > deadline_; }

  // How wide a tree is that was `w` wide before these rows lost slack, in the order of their slack.
  double width(const State& s, int t, double w, const std::vector<int>& order) {
    const PeelTree& tree = trees_[t];
    w = std::min(w, s.rates[tree.root]);
    for (uint64_t arcs = tree.arcs; arcs; arcs &= arcs - 1) w = std::min(w, s.left[lowest(arcs)]);
    const signed char* excess = &excess_[size_t(t) * nrows_];
    size_t i = 0;
    for (; i < order.size() && w > kTiny && s.slack[order[i]] < w * most_excess_; i++)
      if (excess[order[i]] > 0) w = std::min(w, s.slack[order[i]] / excess[order[i]]);
    work_ -= (long long)i + 8;
    return w;
  }

  // Of these trees those that still fit, and how wide they are now that these rows have lost slack.
  void keep_fitting(State& s, const std::vector<std::pair<int, double>>& before, std::vector<int> changed) {
    // Rows that are nearly tight refuse most trees.
    std::sort(changed.begin(), changed.end(), [&](int a, int b) { return s.slack[a] != s.slack[b] ? s.slack[a] < s.slack[b] : a < b; });
    for (const auto& [t, w] : before) {
      double now = width(s, t, w, changed);
      if (now > kTiny) s.alive.push_back({t, now});
    }
  }

  State peeled(const State& s, int t, double w) {
    State next{s.left, s.slack, s.rates, {}};
    for (uint64_t arcs = trees_[t].arcs; arcs; arcs &= arcs - 1) next.left[lowest(arcs)] -= w;
    std::vector<int> changed;
    for (size_t f = 0; f < nrows_; f++) {
      int over = excess_[size_t(t) * nrows_ + f];
      if (over > 0) next.slack[f] -= w * over, changed.push_back(int(f));
    }
    next.rates[trees_[t].root] -= w;
    keep_fitting(next, s.alive, std::move(changed));
    return next;
  }

  // How many trees a state needs at least: what each root has to carry yet over its widest tree.
  int needs(const State& s) {
    std::vector<double> widest(s.rates.size(), 0);
    for (const auto& [t, w] : s.alive) widest[trees_[t].root] = std::max(widest[trees_[t].root], w);
    int sum = 0;
    for (size_t r = 0; r < s.rates.size(); r++) {
      if (s.rates[r] <= kTiny) continue;
      if (widest[r] <= kTiny) return std::numeric_limits<int>::max() / 2;
      sum += int(std::ceil(s.rates[r] / widest[r] - 1e-6));
    }
    return sum;
  }

  bool dive(const State& s) {
    nodes_++;
    int rest = needs(s), depth = int(chosen_.size());
    if (rest == 0) {
      best_ = depth, found_ = chosen_;
      return true;
    }
    if (depth + rest >= best_ || over()) return false;
    double widest = 0;
    for (const auto& [t, w] : s.alive) widest = std::max(widest, w);
    // Sometimes only the widest, sometimes a tree that is a good deal narrower: neither rule finds everything.
    static constexpr double kShares[] = {1, 0.99, 0.75, 0.5, 0.3};
    double least = widest * (rest == 1 ? 1 : kShares[draw_() % 5]) - kTiny;
    std::vector<std::pair<int, double>> wide;
    for (const auto& entry : s.alive)
      if (entry.second >= least) wide.push_back(entry);
    bool last = rest <= kLastLevels || depth >= best_ - kLastLevels;
    for (int tries = last ? kLastTries : 1; tries > 0 && !wide.empty() && nodes_ < kMostNodes; tries--) {
      std::swap(wide[draw_() % wide.size()], wide.back());
      auto [t, w] = wide.back();
      wide.pop_back(), chosen_.push_back(t);
      bool done = dive(peeled(s, t, w));
      chosen_.pop_back();
      if (done) return true;
    }
    return false;
  }

  std::vector<double> capacity_;
  std::vector<PeelRow> rows_;
  std::vector<PeelTree> trees_;
  size_t nrows_;
  std::vector<signed char> excess_;  // of each tree over each row's demand
  int most_excess_ = 1;
  int best_ = 0, nodes_ = 0;
  std::vector<int> found_, chosen_;
  std::mt19937 draw_;
  long long work_ = 0;
  Clock::time_point deadline_;
};

}  // namespace blinkcoll::packing
