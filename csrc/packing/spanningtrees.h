// The spanning trees of a small graph: all of them, or where they are too many a random sample. Undirected graphs list an
// edge once; a tree then counts as deep as it is around its centre. Trees lead away from the root otherwise.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace blinkcoll::packing {

struct SmallArc {
  int from, to;
  double cap;
};

class SpanningTrees {
 public:
  SpanningTrees(int n, std::vector<SmallArc> arcs, bool undirected) : n_(n), arcs_(std::move(arcs)), undirected_(undirected) {}

  // (arcs as bits, depth) of every tree from this root; of `most` random ones where there are more.
  std::vector<std::pair<uint64_t, int>> list(int root, size_t most, unsigned seed) {
    found_.clear(), root_ = root, most_ = most;
    grow(1ull << root, 0, all());
    if (found_.size() > most) draw(seed);
    std::vector<std::pair<uint64_t, int>> trees;
    for (uint64_t tree : found_) trees.push_back({tree, depth(tree)});
    return trees;
  }

  int depth(uint64_t tree) const {
    auto [far, height] = farthest(tree, root_);
    return undirected_ ? (farthest(tree, far).second + 1) / 2 : height;
  }

 private:
  uint64_t all() const { return arcs_.size() == 64 ? ~0ull : (1ull << arcs_.size()) - 1; }

  // Where this arc leads to from within the set, or -1.
  int leads(size_t a, uint64_t inside) const {
    bool from = inside >> arcs_[a].from & 1, to = inside >> arcs_[a].to & 1;
    if (from && !to) return arcs_[a].to;
    return undirected_ && to && !from ? arcs_[a].from : -1;
  }

  bool reaches_all(uint64_t inside, uint64_t arcs) const {
    for (bool grown = true; grown;) {
      grown = false;
      for (size_t a = 0; a < arcs_.size(); a++) {
        int v = arcs >> a & 1 ? leads(a, inside) : -1;
        if (v >= 0) inside |= 1ull << v, grown = true;
      }
    }
    return inside == (1ull << n_) - 1;
  }

  // Trees that contain `tree` and otherwise only `arcs`: with the first arc that leads on, then without it.
  void grow(uint64_t inside, uint64_t tree, uint64_t arcs) {
    if (found_.size() > most_ || !reaches_all(inside, arcs)) return;
    if (inside == (1ull << n_) - 1) return found_.push_back(tree);
    for (size_t a = 0; a < arcs_.size(); a++) {
      int v = arcs >> a & 1 ? leads(a, inside) : -1;
      if (v < 0) continue;
      grow(inside | 1ull << v, tree | 1ull << a, arcs & ~(1ull << a));
      return grow(inside, tree, arcs & ~(1ull << a));
    }
  }

  // Prim's algorithm on random keys; a link of twice the capacity comes first about twice as often.
  void draw(unsigned seed) {
    std::mt19937 random(seed);
    double widest = 0;
    for (const auto& arc : arcs_) widest = std::max(widest, arc.cap);
    std::set<uint64_t> trees;
    std::vector<double> key(arcs_.size());
    for (size_t tries = 0; trees.size() < most_ && tries < 4 * most_; tries++) {
      // Half of them grow breadth first, which gives shallow trees.
      for (size_t a = 0; a < arcs_.size(); a++) key[a] = std::pow((random() + 0.5) / 4294967296.0, widest / arcs_[a].cap);
      trees.insert(prim(key, tries % 2 == 1));
    }
    found_.assign(trees.begin(), trees.end());
  }

  uint64_t prim(const std::vector<double>& key, bool shallow) const {
    uint64_t inside = 1ull << root_, tree = 0;
    std::vector<int> level(n_, 0);
    while (inside != (1ull << n_) - 1) {
      int best = -1, next = -1;
      double highest = -1;
      for (size_t a = 0; a < arcs_.size(); a++) {
        int v = leads(a, inside);
        if (v < 0) continue;
        double k = key[a] - (shallow ? level[arcs_[a].from + arcs_[a].to - v] : 0) + n_;
        if (k > highest) highest = k, best = int(a), next = v;
      }
      level[next] = level[arcs_[best].from + arcs_[best].to - next] + 1;
      inside |= 1ull << next, tree |= 1ull << best;
    }
    return tree;
  }

  std::pair<int, int> farthest(uint64_t tree, int start) const {
    std::vector<int> level(n_, -1), order{start};
    level[start] = 0;
    for (size_t i = 0; i < order.size(); i++)
      for (size_t a = 0; a < arcs_.size(); a++) {
        if (!(tree >> a & 1) || (arcs_[a].from != order[i] && arcs_[a].to != order[i])) continue;
        int v = arcs_[a].from + arcs_[a].to - order[i];
        if (level[v] < 0) level[v] = level[order[i]] + 1, order.push_back(v);
      }
    return {order.back(), level[order.back()]};
  }

  int n_;
  std::vector<SmallArc> arcs_;
  bool undirected_;
  int root_ = 0;
  size_t most_ = 0;
  std::vector<uint64_t> found_;
};

}  // namespace blinkcoll::packing
