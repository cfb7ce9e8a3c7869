// Packing arborescences in a digraph without switches: Edmonds' theorem (1973) made constructive with capacities.
//
// A class is a number of equal partial trees. Invariant: in(A) >= sum of the sizes of the classes that do not meet A,
// for every non-empty A. A class with vertex set R may take mu copies of the arc (x, y), x in R and y not, iff
// mu <= (least x-y cut with every other class attached to x) - (size of the other classes): Berczi and Frank (Packing
// arborescences, 2010); ForestColl (Zhao et al., arXiv 2402.06787, section 5.3) uses the same step.
// Where fewer than all copies can take the arc the class is split, so few trees come of it. Vertices near the root
// grow first, which keeps trees shallow.
#pragma once

#include <stdexcept>

#include "flow.h"
#include "graph.h"

namespace blinkcoll::packing {

template <class Int>
struct PackedTree {
  int root;
  Int size;
  std::vector<std::pair<int, int>> arcs;  // in the order of growth
};

template <class Int>
class ArborescencePacker {
 public:
  ArborescencePacker(const Digraph<Int>& g, const std::vector<Int>& shares)
      : n_(g.n), cap_(size_t(g.n) * g.n, 0), unstarted_(shares) {
    for (const auto& arc : g.arcs) cap_[arc.from * n_ + arc.to] += arc.cap;
  }

  std::vector<PackedTree<Int>> pack() {
    std::vector<PackedTree<Int>> done;
    for (int root = 0; root < n_; root++) {
      if (unstarted_[root] <= 0) continue;
      open_.push_back({{root, unstarted_[root], {}}, std::vector<int>(n_, -1)});
      open_.back().depth[root] = 0;
      unstarted_[root] = 0;
      while (!open_.empty()) {
        Open tree = open_.back();
        open_.pop_back();
        while (int(tree.tree.arcs.size()) < n_ - 1) grow(tree);
        done.push_back(tree.tree);
      }
    }
    return done;
  }

 private:
  struct Open {
    PackedTree<Int> tree;
    std::vector<int> depth;  // -1: not reached
  };

  // Adds one arc, splitting the class where not all of it can take the arc.
  void grow(Open& tree) {
    int best_x = -1, best_y = -1;
    Int best = 0;
    for (int level = 0; level < n_ && best < tree.tree.size; level++) {
      for (int x = 0; x < n_ && best < tree.tree.size; x++) {
        if (tree.depth[x] != level) continue;
        for (int y = 0; y < n_; y++) {
          if (tree.depth[y] >= 0) continue;
          Int most = std::min(cap_[x * n_ + y], tree.tree.size);
          if (most <= best) continue;
          Int mu = takes(x, y, most);
          if (mu > best) best = mu, best_x = x, best_y = y;
          if (best == tree.tree.size) break;
        }
      }
    }
    if (best <= 0) throw std::logic_error("pack: no arc can be added, the cut condition does not hold");
    if (best < tree.tree.size) {
      open_.push_back(tree);
      open_.back().tree.size -= best;
      tree.tree.size = best;
    }
    cap_[best_x * n_ + best_y] -= best;
    tree.tree.arcs.push_back({best_x, best_y});
    tree.depth[best_y] = tree.depth[best_x] + 1;
  }

  // How many of the class can take the arc (x, y), up to `most`.
  Int takes(int x, int y, Int most) {
    FlowNetwork<Int> net(n_);
    for (int u = 0; u < n_; u++)
      for (int v = 0; v < n_; v++)
        if (u != v && cap_[u * n_ + v] > 0) net.add(u, v, cap_[u * n_ + v]);
    Int others = 0;
    for (int r = 0; r < n_; r++) {
      if (unstarted_[r] <= 0) continue;
      others += unstarted_[r];
      if (r != x) net.add(x, r, unstarted_[r]);
    }
    for (const auto& open : open_) {
      others += open.tree.size;
      int hub = net.add_vertex();
      net.add(x, hub, open.tree.size);
      for (int v = 0; v < n_; v++)
        if (open.depth[v] >= 0) net.add(hub, v, open.tree.size);
    }
    Int need = others + most;
    return std::max<Int>(0, net.send(x, y, need) - others);
  }

  int n_;
  std::vector<Int> cap_;
  std::vector<Int> unstarted_;
  std::vector<Open> open_;
};

}  // namespace blinkcoll::packing
