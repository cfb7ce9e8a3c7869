// How many arborescences fit when every rank r is the root of w_r of them, all scaled by one factor t.
//
// Edmonds (Edge-disjoint branchings, 1973), with a source s that has an arc of capacity t w_r to every rank: they fit
// iff every rank can be sent t w(R) from s, that is in(A) >= t w(R \ A) for every vertex set A that holds a rank.
// Broadcast: w is 1 at the root; all-gather: 1 everywhere, where 1/t is the bottleneck ratio of ForestColl (Zhao et al.,
// arXiv 2402.06787, section 4). The largest t is found by Newton's method on the violated cuts.
#pragma once

#include "flow.h"
#include "graph.h"

namespace blinkcoll::packing {

template <class Int>
Int entering(const Digraph<Int>& g, const std::vector<char>& inside) {
  Int total = 0;
  for (const auto& arc : g.arcs)
    if (!inside[arc.from] && inside[arc.to]) total += arc.cap;
  return total;
}

// Where every switch gives out what it takes in, the bound is met; elsewhere it may not be.
template <class Int>
RootCut<Int> root_cut(const Digraph<Int>& g, const std::vector<Int>& weights) {
  Int all = std::accumulate(weights.begin(), weights.end(), Int(0));
  RootCut<Int> best;
  best.den = 0;  // no cut yet
  auto consider = [&](const std::vector<char>& inside) {
    Int outside = all;
    for (int r = 0; r < g.nranks; r++)
      if (inside[r]) outside -= weights[r];
    if (outside <= 0) return;
    Int in = entering(g, inside);
    if (best.den == 0 || in * best.den < best.num * outside) {
      Int common = gcd_of(in, outside);
      if (common == 0) common = 1;
      best = {in / common, outside / common, inside};
    }
  };
  for (int v = 0; v < g.nranks; v++) {
    std::vector<char> alone(g.n, 0);
    alone[v] = 1;
    consider(alone);
  }
  for (int v = 0; v < g.nranks; v++) {
    while (best.den != 0 && best.num != 0) {
      FlowNetwork<Int> net(g.n + 1);
      for (const auto& arc : g.arcs) net.add(arc.from, arc.to, arc.cap * best.den);
      for (int r = 0; r < g.nranks; r++)
        if (weights[r] > 0) net.add(g.n, r, weights[r] * best.num);
      Int need = all * best.num;
      if (net.send(g.n, v, need) == need) break;
      auto inside = net.reaching(v);
      inside.pop_back();
      consider(inside);
    }
  }
  return best;
}

// Sets A with in(A) < shares outside A, at most two a rank: none where the shares fit.
template <class Int>
std::vector<std::vector<char>> violated_cuts(const Digraph<Int>& g, const std::vector<Int>& shares) {
  Int all = std::accumulate(shares.begin(), shares.end(), Int(0));
  std::vector<std::vector<char>> found;
  auto note = [&](std::vector<char> inside) {
    inside.resize(g.n);
    if (std::find(found.begin(), found.end(), inside) == found.end()) found.push_back(std::move(inside));
  };
  for (int v = 0; v < g.nranks; v++) {
    FlowNetwork<Int> net(g.n + 1);
    for (const auto& arc : g.arcs) net.add(arc.from, arc.to, arc.cap);
    for (int r = 0; r < g.nranks; r++)
      if (shares[r] > 0) net.add(g.n, r, shares[r]);
    if (net.send(g.n, v, all) == all) continue;
    note(net.reaching(v));
    auto outside = net.reached_from(g.n);
    for (auto& inside : outside) inside = !inside;
    note(outside);
  }
  return found;
}

}  // namespace blinkcoll::packing
