// Edge-disjoint spanning trees of a multigraph: matroid partition by shortest augmenting sequences (Edmonds 1965;
// Schrijver, Combinatorial Optimization, section 51.4).
//
// Edges are put into forests one after another. Where an edge closes a cycle in every forest, a breadth-first search
// over exchanges (an edge may enter a forest if another of its cycle leaves it) finds room, or proves that there is none.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

namespace blinkcoll::packing {

class ForestPacker {
 public:
  ForestPacker(int n, int nforests, std::vector<std::pair<int, int>> edges)
      : n_(n), nforests_(nforests), edges_(std::move(edges)), forest_(edges_.size(), -1) {}

  // Trees as lists of edges; fewer than nforests of them span where there is no room for more.
  std::vector<std::vector<std::pair<int, int>>> pack() {
    for (size_t e = 0; e < edges_.size(); e++) insert(int(e));
    std::vector<std::vector<std::pair<int, int>>> trees(nforests_);
    for (size_t e = 0; e < edges_.size(); e++) {
      if (forest_[e] >= 0) trees[forest_[e]].push_back(edges_[e]);
    }
    trees.erase(std::remove_if(trees.begin(), trees.end(), [&](const auto& tree) { return int(tree.size()) < n_ - 1; }), trees.end());
    return trees;
  }

 private:
  void insert(int e) {
    std::vector<int> parent(edges_.size(), -2), queue{e};  // -2: not seen
    parent[e] = -1;
    for (size_t head = 0; head < queue.size(); head++) {
      int f = queue[head];
      for (int i = 0; i < nforests_; i++) {
        if (i == forest_[f]) continue;
        std::vector<int> cycle;
        if (!path(i, edges_[f].first, edges_[f].second, cycle)) return exchange(f, i, parent);
        for (int g : cycle) {
          if (parent[g] != -2) continue;
          parent[g] = f;
          queue.push_back(g);
        }
      }
    }
  }

  // f enters forest i, what it displaces nothing; its own place goes to the edge that led to it, and so on back.
  void exchange(int f, int i, const std::vector<int>& parent) {
    for (; f != -1; f = parent[f]) std::swap(forest_[f], i);
  }

  // The edges of forest i between u and v; false where it does not join them.
  bool path(int i, int u, int v, std::vector<int>& edges) const {
    std::vector<int> by(n_, -1), from(n_, -1), queue{u};
    std::vector<char> seen(n_, 0);
    seen[u] = 1;
    for (size_t head = 0; head < queue.size() && !seen[v]; head++) {
      int x = queue[head];
      for (size_t e = 0; e < edges_.size(); e++) {
        if (forest_[e] != i || (edges_[e].first != x && edges_[e].second != x)) continue;
        int y = edges_[e].first == x ? edges_[e].second : edges_[e].first;
        if (seen[y]) continue;
        seen[y] = 1, by[y] = int(e), from[y] = x;
        queue.push_back(y);
      }
    }
    if (!seen[v]) return false;
    for (int x = v; x != u; x = from[x]) edges.push_back(by[x]);
    return true;
  }

  int n_, nforests_;
  std::vector<std::pair<int, int>> edges_;
  std::vector<int> forest_;  // of each edge; -1: none
};

}  // namespace blinkcoll::packing
