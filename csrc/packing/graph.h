// The capacitated digraph that the packers work on: ranks are 0..nranks-1, switches follow.
#pragma once

#include <numeric>
#include <vector>

#include "flow.h"

namespace blinkcoll::packing {

template <class Int>
struct Arc {
  int from, to;
  Int cap;
};

template <class Int>
struct Digraph {
  int n = 0;       // vertices
  int nranks = 0;  // the first of them
  std::vector<Arc<Int>> arcs;
};

// A rate t = num / den and the vertex set that proves that no more is possible.
template <class Int>
struct RootCut {
  Int num = 0, den = 1;
  std::vector<char> inside;
};

// Whether every rank can be sent all shares: where switches give out what they take in, that is the condition under
// which shares[r] arborescences rooted at r fit (see rootcut.h).
template <class Int>
bool shares_fit(const Digraph<Int>& g, const std::vector<Int>& shares) {
  Int all = std::accumulate(shares.begin(), shares.end(), Int(0));
  FlowNetwork<Int> net;
  for (int v = 0; v < g.nranks; v++) {
    net.reset(g.n + 1);
    for (const auto& arc : g.arcs) net.add(arc.from, arc.to, arc.cap);
    for (int r = 0; r < g.nranks; r++)
      if (shares[r] > 0) net.add(g.n, r, shares[r]);
    if (net.send(g.n, v, all) < all) return false;
  }
  return true;
}

template <class Int>
Int largest() {
  return (((Int(1) << (8 * sizeof(Int) - 2)) - 1) << 1) + 1;
}

template <class Int>
Int gcd_of(Int a, Int b) {
  while (b != 0) {
    Int r = a % b;
    a = b;
    b = r;
  }
  return a < 0 ? -a : a;
}

}  // namespace blinkcoll::packing
