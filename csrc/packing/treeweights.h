// Blink's first stage: trees packed by multiplicative weights (Garg and Koenemann, Faster and simpler algorithms for
// multicommodity flow, 2007, section 2, on trees instead of paths). Every arc has a length; the shortest tree is taken at
// the rate of its narrowest arc, and the arcs it uses get longer by that share of their capacity, until no tree is
// shorter than 1. Scaled to the capacities that is at least (1 - epsilon)^2 of the optimum. Shortest trees are minimum
// spanning trees (Prim) or minimum arborescences (Chu and Liu, Edmonds).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

#include "spanningtrees.h"
#include "timelimit.h"

namespace blinkcoll::packing {

class TreeWeights {
 public:
  TreeWeights(int n, std::vector<SmallArc> arcs, bool undirected, int root) : n_(n), arcs_(std::move(arcs)), undirected_(undirected), root_(root) {}

  // What each tree (its arcs, sorted) was taken for, before scaling to capacities (whole numbers, where capacities are); and
  // how often trees were taken.
  std::pair<std::map<std::vector<int>, double>, long long> pack(double epsilon) {
    double delta = (1 + epsilon) * std::pow((1 + epsilon) * (n_ - 1), -1 / epsilon);  // a tree has n - 1 arcs
    if (delta < 1e-290) throw std::invalid_argument("epsilon is too small for lengths in double precision");
    std::vector<double> length(arcs_.size(), delta);
    std::map<std::vector<int>, double> taken;
    long long rounds = 0;
    while (true) {
      if (rounds % 256 == 0) check_time_limit();
      auto tree = undirected_ ? prim(length) : arborescence(length);
      double total = 0, narrowest = std::numeric_limits<double>::infinity();
      for (int a : tree) total += length[a], narrowest = std::min(narrowest, arcs_[a].cap);
      if (total >= 1) return {taken, rounds};
      taken[tree] += narrowest, rounds++;
      for (int a : tree) length[a] *= 1 + epsilon * narrowest / arcs_[a].cap;
    }
  }

 private:
  std::vector<int> prim(const std::vector<double>& length) const {
    std::vector<char> inside(n_, 0);
    std::vector<int> tree;
    inside[root_] = 1;
    for (int step = 1; step < n_; step++) {
      int best = -1;
      for (size_t a = 0; a < arcs_.size(); a++)
        if (inside[arcs_[a].from] != inside[arcs_[a].to] && (best < 0 || length[a] < length[best])) best = int(a);
      if (best < 0) throw std::invalid_argument("the arcs do not join all vertices");
      tree.push_back(best);
      inside[arcs_[best].from] = inside[arcs_[best].to] = 1;
    }
    std::sort(tree.begin(), tree.end());
    return tree;
  }

  struct Edge {
    int from, to, arc;  // `arc` of the level above
    double length;
  };

  std::vector<int> arborescence(const std::vector<double>& length) const {
    std::vector<Edge> edges;
    for (size_t a = 0; a < arcs_.size(); a++) edges.push_back({arcs_[a].from, arcs_[a].to, int(a), length[a]});
    auto tree = contract(n_, root_, edges);
    std::sort(tree.begin(), tree.end());
    return tree;
  }

  // Chu-Liu-Edmonds: the cheapest arc into every vertex; cycles become one vertex, whose entry drops the arc it replaces.
  static std::vector<int> contract(int n, int root, const std::vector<Edge>& edges) {
    std::vector<int> in(n, -1);
    for (size_t e = 0; e < edges.size(); e++) {
      int v = edges[e].to;
      if (v != root && edges[e].from != v && (in[v] < 0 || edges[e].length < edges[in[v]].length)) in[v] = int(e);
    }
    for (int v = 0; v < n; v++)
      if (v != root && in[v] < 0) throw std::invalid_argument("the arcs do not lead from the root to all vertices");
    std::vector<int> mark(n, -1), group(n, -1);
    int groups = 0;
    for (int v = 0; v < n; v++) {
      int u = v;
      while (u != root && mark[u] < 0) mark[u] = v, u = edges[in[u]].from;
      if (u == root || mark[u] != v || group[u] >= 0) continue;
      for (int w = u; group[w] < 0; w = edges[in[w]].from) group[w] = groups;
      groups++;
    }
    std::vector<int> tree;
    if (groups == 0) {
      for (int v = 0; v < n; v++)
        if (v != root) tree.push_back(edges[in[v]].arc);
      return tree;
    }
    int cycles = groups;
    for (int v = 0; v < n; v++)
      if (group[v] < 0) group[v] = groups++;
    std::vector<Edge> between;
    for (size_t e = 0; e < edges.size(); e++) {
      const Edge& edge = edges[e];
      if (group[edge.from] == group[edge.to]) continue;
      double saved = group[edge.to] < cycles ? edges[in[edge.to]].length : 0;
      between.push_back({group[edge.from], group[edge.to], int(e), edge.length - saved});
    }
    std::vector<char> entered(n, 0);
    for (int e : contract(groups, group[root], between)) {
      tree.push_back(edges[e].arc);
      entered[edges[e].to] = 1;
    }
    for (int v = 0; v < n; v++)
      if (group[v] < cycles && !entered[v]) tree.push_back(edges[in[v]].arc);
    return tree;
  }

  int n_;
  std::vector<SmallArc> arcs_;
  bool undirected_;
  int root_;
};

}  // namespace blinkcoll::packing
