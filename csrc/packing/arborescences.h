// Packing arborescences in a digraph without switches: Edmonds' theorem (1973) made constructive with capacities.
//
// A class is a number of equal partial trees. Let h(A) = in(A) - (sizes of the classes that do not meet A); the
// invariant is h >= 0 on every non-empty A. A class with vertex set R may take mu copies of the arc (x, y), x in R and
// y not, iff mu <= h(A) for every A that holds y and meets R but not x; as h(A) is at least the size of the class where
// A does not meet R, one flow from x to y with every other class attached to x finds the largest mu (Berczi and Frank,
// Packing arborescences, 2010; ForestColl, Zhao et al., arXiv 2402.06787, section 5.3).
// h never grows, so a set with h = 0 blocks its arcs for good and is kept. Where fewer than all copies can take the arc
// the class is split. Vertices near the root grow first, which keeps trees shallow.
#pragma once

#include <random>
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

// Any taste gives as many trees' worth of rate; callers can try several and keep the packing they like.
struct Taste {
  unsigned seed = 0;     // decides between arcs of equal capacity; 0 keeps the order they are given in
  bool shallow = false;  // take what the vertices nearest to the root offer, even if that splits a class
};

template <class Int>
class ArborescencePacker {
 public:
  ArborescencePacker(const Digraph<Int>& g, const std::vector<Int>& shares, Taste taste) : n_(g.n), shallow_(taste.shallow), out_(g.n), unstarted_(shares) {
    for (const auto& arc : g.arcs)
      if (arc.cap > 0 && arc.from != arc.to) out_[arc.from].push_back({arc.from, arc.to, arc.cap});
    std::minstd_rand random(taste.seed);
    for (auto& arcs : out_) {
      for (size_t i = arcs.size(); taste.seed != 0 && i > 1; i--) std::swap(arcs[i - 1], arcs[random() % i]);
      std::stable_sort(arcs.begin(), arcs.end(), [](const auto& a, const auto& b) { return a.cap > b.cap; });
    }
  }

  std::vector<PackedTree<Int>> pack() {
    std::vector<PackedTree<Int>> done;
    for (int root = 0; root < n_; root++) {
      if (unstarted_[root] <= 0) continue;
      open_.push_back(Open{{root, unstarted_[root], {}}, {root}, std::vector<char>(n_, 0), std::vector<int>(n_, 0)});
      open_.back().inside[root] = 1;
      unstarted_[root] = 0;
      while (!open_.empty()) {
        Open tree = std::move(open_.back());
        open_.pop_back();
        while (int(tree.order.size()) < n_) grow(tree);
        done.push_back(std::move(tree.tree));
      }
    }
    return done;
  }

 private:
  struct Open {
    PackedTree<Int> tree;
    std::vector<int> order;  // vertices, nearest to the root first
    std::vector<char> inside;
    std::vector<int> depth;
  };
  struct TightSet {
    std::vector<char> inside;
    std::vector<int> members;
  };

  // Adds one arc, splitting the class where not all of it can take the arc.
  void grow(Open& tree) {
    Int most = 0;
    for (int x : tree.order)
      for (const auto& arc : out_[x])
        if (!tree.inside[arc.to]) most = std::max(most, std::min(arc.cap, tree.tree.size));
    Arc<Int>* chosen = nullptr;
    Int best = 0;
    for (size_t i = 0; i < tree.order.size() && best < most; i++) {
      if (shallow_ && best > 0 && tree.depth[tree.order[i]] > tree.depth[chosen->from]) break;
      for (auto& arc : out_[tree.order[i]]) {
        Int cap = std::min(arc.cap, tree.tree.size);
        if (tree.inside[arc.to] || cap <= best || blocked(tree, arc)) continue;
        Int mu = takes(arc.from, arc.to, cap);
        if (mu > best) best = mu, chosen = &arc;
        if (best == most) break;
      }
    }
    if (!chosen) throw std::logic_error("pack: no arc can be added, so the shares do not fit");
    if (best < tree.tree.size) {
      open_.push_back(tree);
      open_.back().tree.size -= best;
      tree.tree.size = best;
    }
    chosen->cap -= best;
    tree.tree.arcs.push_back({chosen->from, chosen->to});
    tree.inside[chosen->to] = 1;
    tree.depth[chosen->to] = tree.depth[chosen->from] + 1;
    auto farther = std::upper_bound(tree.order.begin(), tree.order.end(), chosen->to, [&](int a, int b) { return tree.depth[a] < tree.depth[b]; });
    tree.order.insert(farther, chosen->to);
  }

  bool blocked(const Open& tree, const Arc<Int>& arc) const {
    for (const auto& tight : tight_) {
      if (!tight.inside[arc.to] || tight.inside[arc.from]) continue;
      for (int v : tight.members)
        if (tree.inside[v]) return true;
    }
    return false;
  }

  // How many of the class can take the arc (x, y), up to `most`.
  Int takes(int x, int y, Int most) {
    net_.reset(n_);
    for (const auto& arcs : out_)
      for (const auto& arc : arcs)
        if (arc.cap > 0 && arc.to != x && arc.from != y) net_.add(arc.from, arc.to, arc.cap);
    Int others = 0;
    for (int r = 0; r < n_; r++) {
      if (unstarted_[r] <= 0) continue;
      others += unstarted_[r];
      if (r != x) net_.add(x, r, unstarted_[r]);
    }
    for (const auto& open : open_) {
      others += open.tree.size;
      int hub = net_.add_vertex();
      net_.add(x, hub, open.tree.size);
      for (int v : open.order)
        if (v != x) net_.add(hub, v, open.tree.size);
    }
    Int mu = net_.send(x, y, others + most) - others;
    if (mu <= 0) {
      TightSet tight{net_.reaching(y), {}};
      tight.inside.resize(n_);
      for (int v = 0; v < n_; v++)
        if (tight.inside[v]) tight.members.push_back(v);
      tight_.push_back(std::move(tight));
    }
    return std::max<Int>(0, mu);
  }

  int n_;
  bool shallow_;
  std::vector<std::vector<Arc<Int>>> out_;
  std::vector<Int> unstarted_;
  std::vector<Open> open_;
  std::vector<TightSet> tight_;
  FlowNetwork<Int> net_;
};

}  // namespace blinkcoll::packing
