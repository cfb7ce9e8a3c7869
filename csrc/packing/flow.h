// Maximum flow on small graphs: Dinic (1970), capacities of any signed integer type.
#pragma once

#include "timelimit.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace blinkcoll::packing {

// Vertices are 0..n-1. An arc's twin is its index with the last bit flipped.
template <class Int>
class FlowNetwork {
 public:
  explicit FlowNetwork(int n = 0) { reset(n); }

  // Empties the network; memory is kept.
  void reset(int n) {
    first_.assign(n, -1);
    level_.resize(n);
    cursor_.resize(n);
    next_.clear();
    to_.clear();
    residual_.clear();
  }

  int add_vertex() {
    first_.push_back(-1);
    level_.push_back(0);
    cursor_.push_back(0);
    return int(first_.size()) - 1;
  }

  // An arc u -> v; `back` is the capacity of v -> u (an undirected edge has both). Returns its index.
  int add(int u, int v, Int cap, Int back = 0) {
    int index = int(to_.size());
    push(u, v, cap);
    push(v, u, back);
    return index;
  }

  Int residual(int arc) const { return residual_[arc]; }

  // Sends up to `limit` more from s to t and returns how much it sent. Less than `limit`: the flow is maximal.
  Int send(int s, int t, Int limit) {
    Int sent = 0;
    while (sent < limit && label(s, t)) {
      check_time_limit();
      std::copy(first_.begin(), first_.end(), cursor_.begin());
      while (sent < limit) {
        Int got = augment(s, t, limit - sent);
        if (got == 0) break;
        sent += got;
      }
    }
    return sent;
  }

  // Vertices that s still reaches: after a maximal flow, the smallest source side of a minimum cut.
  std::vector<char> reached_from(int s) const {
    std::vector<char> seen(first_.size(), 0);
    std::vector<int> queue{s};
    seen[s] = 1;
    for (size_t i = 0; i < queue.size(); i++)
      for (int a = first_[queue[i]]; a >= 0; a = next_[a])
        if (residual_[a] > 0 && !seen[to_[a]]) seen[to_[a]] = 1, queue.push_back(to_[a]);
    return seen;
  }

  // Vertices that still reach t: after a maximal flow, the smallest sink side of a minimum cut.
  std::vector<char> reaching(int t) const {
    std::vector<char> seen(first_.size(), 0);
    std::vector<int> queue{t};
    seen[t] = 1;
    for (size_t i = 0; i < queue.size(); i++)
      for (int a = first_[queue[i]]; a >= 0; a = next_[a])
        if (residual_[a ^ 1] > 0 && !seen[to_[a]]) seen[to_[a]] = 1, queue.push_back(to_[a]);
    return seen;
  }

 private:
  void push(int u, int v, Int cap) {
    to_.push_back(v);
    residual_.push_back(cap);
    next_.push_back(first_[u]);
    first_[u] = int(to_.size()) - 1;
  }

  bool label(int s, int t) {
    std::fill(level_.begin(), level_.end(), -1);
    queue_.clear();
    queue_.push_back(s);
    level_[s] = 0;
    for (size_t i = 0; i < queue_.size(); i++) {
      int u = queue_[i];
      for (int a = first_[u]; a >= 0; a = next_[a]) {
        int v = to_[a];
        if (residual_[a] <= 0 || level_[v] >= 0) continue;
        level_[v] = level_[u] + 1;
        if (v == t) return true;
        queue_.push_back(v);
      }
    }
    return false;
  }

  // Depth is at most the number of vertices, so recursion is safe for the sizes here (a few thousand).
  Int augment(int u, int t, Int limit) {
    if (u == t) return limit;
    Int sent = 0;
    for (int& a = cursor_[u]; a >= 0; a = next_[a]) {
      int v = to_[a];
      if (residual_[a] <= 0 || level_[v] != level_[u] + 1) continue;
      Int got = augment(v, t, std::min<Int>(limit - sent, residual_[a]));
      residual_[a] -= got;
      residual_[a ^ 1] += got;
      sent += got;
      if (sent == limit) return sent;  // keep the cursor: this arc may have room left
    }
    return sent;
  }

  std::vector<int> first_, next_, to_;
  std::vector<Int> residual_;
  std::vector<int> level_, cursor_, queue_;
};

}  // namespace blinkcoll::packing
