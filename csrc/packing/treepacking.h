// From capacities and shares to trees with their ways through switches: splitting, then Edmonds' packing.
#pragma once

#include "arborescences.h"
#include "rootcut.h"
#include "splitting.h"
#include "strength.h"

namespace blinkcoll::packing {

// Trees on ranks; `ways` says through which switches an arc of a tree goes, and how much fits each way.
template <class Int>
struct Packing {
  std::vector<PackedTree<Int>> trees;
  Int tree_scale = 1;  // a tree of size k takes k / tree_scale of the capacities given
  typename SwitchRemover<Int>::Pool ways;
  Int way_scale = 1;
  bool undirected = false;  // ways are symmetric: an arc and its reverse share those of one direction
};

template <class Int>
Digraph<Int> without_switches(Digraph<Int> g) {
  g.n = g.nranks;
  return g;
}

// shares[r] arborescences rooted at r; the caller knows that they fit and that switches are balanced.
template <class Int>
Packing<Int> pack_shares(const Digraph<Int>& g, const std::vector<Int>& shares, Taste taste) {
  SwitchRemover<Int> remover(g, shares);
  remover.remove_all();
  std::vector<Int> scaled(shares);
  for (auto& share : scaled) share *= remover.factor();
  Packing<Int> packing;
  packing.trees = ArborescencePacker<Int>(without_switches(remover.rest()), scaled, taste).pack();
  packing.tree_scale = packing.way_scale = remover.factor();
  packing.ways = remover.pool();
  return packing;
}

template <class Int>
Digraph<Int> both_ways(const Digraph<Int>& edges) {
  Digraph<Int> g = edges;
  for (const auto& edge : edges.arcs) g.arcs.push_back({edge.to, edge.from, edge.cap});
  return g;
}

// Undirected trees, s of them (see strength.h), as arborescences rooted at `root` to be used in both directions.
template <class Int>
Packing<Int> pack_undirected(const Digraph<Int>& edges, const Strength<Int>& s, int root, Taste taste) {
  SwitchRemover<Int> remover(both_ways(edges), std::vector<Int>(edges.nranks, 0));
  if (!remover.remove_all_undirected(s.num, s.den)) {
    std::vector<Int> shares(edges.nranks, 0);
    shares[root] = 2 * s.num;
    auto packing = pack_shares(orient(edges, s, root), shares, taste);
    packing.tree_scale *= 2 * s.den;
    packing.way_scale *= 2 * s.den;
    return packing;
  }
  auto split = without_switches(remover.rest());
  split.arcs.erase(std::remove_if(split.arcs.begin(), split.arcs.end(), [](const auto& arc) { return arc.from > arc.to; }), split.arcs.end());
  auto strength = StrengthSolver<Int>(split).solve();
  std::vector<Int> shares(edges.nranks, 0);
  shares[root] = 2 * strength.num;
  Packing<Int> packing;
  packing.trees = ArborescencePacker<Int>(orient(split, strength, root), shares, taste).pack();
  packing.tree_scale = remover.factor() * 2 * strength.den;
  packing.way_scale = remover.factor();
  packing.ways = remover.pool();
  packing.undirected = true;
  return packing;
}

}  // namespace blinkcoll::packing
