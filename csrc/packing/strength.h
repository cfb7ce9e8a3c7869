// All-reduce on symmetric links: how many undirected spanning trees fit, and an orientation that holds them.
//
// Ranks R, switches S that forward but neither copy nor add, undirected capacities c. X trees fit (fractionally, with
// every tree edge a path through switches) iff for every partition of R into k parts, sum of lambda(part) >=
// 2 (k - 1) X, where lambda(B) is the least capacity of a cut between B and R \ B. Without switches that is
// Tutte's and Nash-Williams' theorem (1961). With them: an orientation o of the edges that is conserved at every switch
// and in which in(A) >= X for every A that holds a rank but not the root exists iff there is z on the ranks with
// z(R) = 2X and d(A) + z(A) >= 2X for every A that holds a rank (Frank, On the orientation of graphs, 1980: the right
// side is intersecting supermodular); the greedy algorithm finds the least z, or the partition that forbids it.
#pragma once

#include <stdexcept>

#include "flow.h"
#include "graph.h"

namespace blinkcoll::packing {

template <class Int>
struct Strength {
  Int num = 0, den = 1;                 // X
  std::vector<std::vector<char>> parts;  // disjoint vertex sets, one a part, that prove it
  std::vector<Int> z;                    // scaled by den
};

// `g` holds one arc per undirected edge.
template <class Int>
class StrengthSolver {
 public:
  explicit StrengthSolver(const Digraph<Int>& g) : g_(g) {}

  Strength<Int> solve() {
    Strength<Int> best;
    best.parts = singletons();
    rate_of(best);
    while (best.num > 0) {
      auto parts = greedy(best);
      Int total = std::accumulate(best.z.begin(), best.z.end(), Int(0));
      if (total == 2 * best.num) break;
      best.parts = parts;
      rate_of(best);
    }
    return best;
  }

  // Whether num / den trees fit.
  bool holds(Int num, Int den) {
    Strength<Int> s;
    s.num = num;
    s.den = den;
    greedy(s);
    return std::accumulate(s.z.begin(), s.z.end(), Int(0)) == 2 * num;
  }

 private:
  std::vector<std::vector<char>> singletons() {
    std::vector<std::vector<char>> parts;
    for (int v = 0; v < g_.nranks; v++) {
      std::vector<char> part(g_.n, 0);
      part[v] = 1;
      parts.push_back(part);
    }
    return parts;
  }

  // Grows every part to the smallest side of a least cut around its ranks, and sets the rate that follows.
  void rate_of(Strength<Int>& s) {
    Int infinite = 1;
    for (const auto& arc : g_.arcs) infinite += arc.cap;
    Int total = 0;
    for (auto& part : s.parts) {
      FlowNetwork<Int> net(g_.n + 2);
      for (const auto& arc : g_.arcs) net.add(arc.from, arc.to, arc.cap, arc.cap);
      for (int v = 0; v < g_.nranks; v++) part[v] ? net.add(g_.n, v, infinite) : net.add(v, g_.n + 1, infinite);
      total += net.send(g_.n, g_.n + 1, infinite);
      part = net.reached_from(g_.n);
      part.resize(g_.n);
    }
    Int den = 2 * (Int(s.parts.size()) - 1), common = gcd_of(total, den);
    s.num = total / common;
    s.den = den / common;
  }

  // The least z for the rate s.num / s.den, one rank after the other; returns the finest partition into tight sets.
  std::vector<std::vector<char>> greedy(Strength<Int>& s) {
    std::vector<std::vector<char>> parts;
    s.z.assign(g_.nranks, 0);
    for (int v = 0; v < g_.nranks; v++) {
      int sink = g_.n;
      FlowNetwork<Int> net(g_.n + 1);
      Int infinite = 1, gain = 0;
      for (const auto& arc : g_.arcs) {
        net.add(arc.from, arc.to, arc.cap * s.den, arc.cap * s.den);
        infinite += arc.cap * s.den;
      }
      for (int u = 0; u < v; u++) {
        if (s.z[u] >= 0) {
          net.add(u, sink, s.z[u]);
        } else {
          net.add(v, u, -s.z[u]);
          gain -= s.z[u];
        }
        infinite += s.z[u] < 0 ? -s.z[u] : s.z[u];
      }
      for (int u = v + 1; u < g_.nranks; u++) net.add(u, sink, infinite);
      s.z[v] = 2 * s.num - (net.send(v, sink, infinite) - gain);
      auto tight = net.reached_from(v);
      tight.resize(g_.n);
      merge(parts, tight);
    }
    return parts;
  }

  // Tight sets that share a rank are tight together.
  void merge(std::vector<std::vector<char>>& parts, std::vector<char> tight) const {
    size_t kept = 0;
    for (size_t i = 0; i < parts.size(); i++) {
      bool meets = false;
      for (int v = 0; v < g_.nranks; v++) meets = meets || (parts[i][v] && tight[v]);
      if (meets)
        for (int v = 0; v < g_.n; v++) tight[v] = tight[v] || parts[i][v];
      else if (kept++ != i)
        parts[kept - 1] = parts[i];
    }
    parts.resize(kept);
    parts.push_back(tight);
  }

  const Digraph<Int>& g_;
};

// Directed capacities, scaled by 2 * s.den, in which 2 * s.num arborescences rooted at `root` fit and which sum to c
// over the two directions of every edge. Switches give out what they take in.
template <class Int>
Digraph<Int> orient(const Digraph<Int>& g, const Strength<Int>& s, int root) {
  int source = g.n, sink = g.n + 1;
  FlowNetwork<Int> net(g.n + 2);
  for (const auto& arc : g.arcs) net.add(arc.from, arc.to, arc.cap * s.den, arc.cap * s.den);
  Int total = 0;
  for (int v = 0; v < g.nranks; v++) {
    Int net_in = s.z[v] - (v == root ? 2 * s.num : 0);
    if (net_in < 0) net.add(source, v, -net_in);
    if (net_in > 0) net.add(v, sink, net_in), total += net_in;
  }
  if (net.send(source, sink, total) != total) throw std::logic_error("orient: z is not feasible");
  Digraph<Int> oriented{g.n, g.nranks, {}};
  for (size_t i = 0; i < g.arcs.size(); i++) {
    const auto& arc = g.arcs[i];
    Int back = net.residual(int(2 * i)), forth = net.residual(int(2 * i + 1));  // c - flow, c + flow
    if (forth > 0) oriented.arcs.push_back({arc.from, arc.to, forth});
    if (back > 0) oriented.arcs.push_back({arc.to, arc.from, back});
  }
  return oriented;
}

}  // namespace blinkcoll::packing
