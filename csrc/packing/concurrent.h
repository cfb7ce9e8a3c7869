// All-to-all when there is no time for the exact optimum: multiplicative weights (Garg and Koenemann, Faster and simpler
// algorithms for multicommodity flow, 2007; with Fleischer's shortest-path trees, one a source). Deterministic: the number of
// rounds is given. Floats only choose paths and lengths; what they are worth is computed exactly by the caller.
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <queue>
#include <vector>

#include "graph.h"

namespace blinkcoll::packing {

struct ConcurrentFlow {
  std::vector<std::vector<int>> parents;  // per round and source: the arc by which each vertex is reached, or -1
  std::vector<double> lengths;            // per arc: the best dual found
};

class ConcurrentSolver {
 public:
  ConcurrentSolver(const Digraph<double>& g, double epsilon) : g_(g), epsilon_(epsilon), out_(g.n), length_(g.arcs.size()) {
    for (size_t a = 0; a < g.arcs.size(); a++) {
      out_[g.arcs[a].from].push_back(int(a));
      length_[a] = 1 / g.arcs[a].cap;
    }
  }

  ConcurrentFlow solve(int rounds) {
    ConcurrentFlow result;
    double best = std::numeric_limits<double>::infinity(), step = 0;
    for (int round = 0; round < rounds; round++) {
      auto before = length_;
      double volume = 0, far = 0;
      for (size_t a = 0; a < length_.size(); a++) volume += length_[a] * g_.arcs[a].cap;
      std::vector<std::vector<double>> loads;
      for (int s = 0; s < g_.nranks; s++) {
        std::vector<double> load(length_.size(), 0);
        result.parents.push_back(shortest(s, round == 0 ? before : length_, load));
        if (round == 0) {
          loads.push_back(load);
        } else {
          raise(load, step);
        }
      }
      if (round == 0) {  // the first round sets the step: its own worst load counts as 1
        double worst = 0;
        for (size_t a = 0; a < length_.size(); a++) {
          double sum = 0;
          for (const auto& load : loads) sum += load[a];
          worst = std::max(worst, sum / g_.arcs[a].cap);
        }
        step = 1 / worst;
        for (const auto& load : loads) raise(load, step);
      }
      std::vector<double> unused(length_.size(), 0);
      for (int s = 0; s < g_.nranks; s++) {
        shortest(s, before, unused);
        for (int v = 0; v < g_.nranks; v++) far += distance_[v];
      }
      if (volume / far < best) best = volume / far, result.lengths = before;
      double largest = 0;
      for (double l : length_) largest = std::max(largest, l);
      for (double& l : length_) l /= largest;
    }
    return result;
  }

 private:
  void raise(const std::vector<double>& load, double step) {
    for (size_t a = 0; a < length_.size(); a++)
      if (load[a] > 0) length_[a] *= std::exp(epsilon_ * step * load[a] / g_.arcs[a].cap);
  }

  // Shortest paths from s; `load` gets one unit for every rank along them.
  std::vector<int> shortest(int s, const std::vector<double>& length, std::vector<double>& load) {
    using Entry = std::pair<double, int>;
    distance_.assign(g_.n, std::numeric_limits<double>::infinity());
    std::vector<int> parent(g_.n, -1), order;
    std::vector<char> done(g_.n, 0);
    std::priority_queue<Entry, std::vector<Entry>, std::greater<Entry>> queue;
    queue.push({distance_[s] = 0, s});
    while (!queue.empty()) {
      auto [far, u] = queue.top();
      queue.pop();
      if (done[u]) continue;
      done[u] = 1;
      order.push_back(u);
      for (int a : out_[u]) {
        int v = g_.arcs[a].to;
        if (far + length[a] < distance_[v]) queue.push({distance_[v] = far + length[a], v}), parent[v] = a;
      }
    }
    std::vector<double> below(g_.n, 0);
    for (size_t i = order.size(); i-- > 1;) {
      int v = order[i];
      if (v < g_.nranks) below[v] += 1;
      load[parent[v]] += below[v];
      below[g_.arcs[parent[v]].from] += below[v];
    }
    return parent;
  }

  const Digraph<double>& g_;
  double epsilon_;
  std::vector<std::vector<int>> out_;
  std::vector<double> length_, distance_;
};

}  // namespace blinkcoll::packing
