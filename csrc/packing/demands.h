// Scatter: one source, the same amount for every other rank, by any paths. Gather is the same on reversed arcs.
//
// The largest t for which every rank can get t at once is the least in(A) / (ranks in A) over sets A without the root
// (max-flow min-cut with one sink that takes t from each rank); Newton's method on the violated cuts finds it.
#pragma once

#include <stdexcept>

#include "rootcut.h"

namespace blinkcoll::packing {

template <class Int>
struct Route {
  std::vector<int> path;
  Int size;
};

template <class Int>
struct Demands {
  RootCut<Int> cut;                // t = num / den
  std::vector<Route<Int>> routes;  // scaled by den
};

// Takes paths from `root` to `sink` out of a flow, shortest first, `amount` in all.
template <class Int>
void take_paths(int n, std::vector<Arc<Int>>& flow, int root, int sink, Int amount, std::vector<Route<Int>>& routes) {
  while (amount > 0) {
    std::vector<int> by(n, -1), queue{root};
    for (size_t i = 0; i < queue.size() && by[sink] < 0; i++)
      for (size_t a = 0; a < flow.size(); a++)
        if (flow[a].from == queue[i] && flow[a].cap > 0 && flow[a].to != root && by[flow[a].to] < 0) by[flow[a].to] = int(a), queue.push_back(flow[a].to);
    if (by[sink] < 0) throw std::logic_error("demands: the flow does not reach a rank");
    Route<Int> route{{sink}, amount};
    for (int v = sink; v != root; v = flow[by[v]].from) {
      route.path.push_back(flow[by[v]].from);
      route.size = std::min(route.size, flow[by[v]].cap);
    }
    for (int v = sink; v != root; v = flow[by[v]].from) flow[by[v]].cap -= route.size;
    std::reverse(route.path.begin(), route.path.end());
    amount -= route.size;
    routes.push_back(std::move(route));
  }
}

template <class Int>
Demands<Int> demands(const Digraph<Int>& g, int root) {
  Demands<Int> best;
  Int ranks = g.nranks - 1;
  std::vector<char> all(g.n, 1);
  all[root] = 0;
  best.cut = {entering(g, all), ranks, all};
  while (true) {
    Int common = gcd_of(best.cut.num, best.cut.den);
    if (common > 1) best.cut.num /= common, best.cut.den /= common;
    if (best.cut.num == 0) return best;
    FlowNetwork<Int> net(g.n + 1);
    for (const auto& arc : g.arcs) net.add(arc.from, arc.to, arc.cap * best.cut.den);
    for (int r = 0; r < g.nranks; r++)
      if (r != root) net.add(r, g.n, best.cut.num);
    if (net.send(root, g.n, ranks * best.cut.num) == ranks * best.cut.num) {
      auto flow = g.arcs;
      for (size_t a = 0; a < flow.size(); a++) flow[a].cap = net.residual(int(2 * a + 1));
      for (int r = 0; r < g.nranks; r++)
        if (r != root) take_paths(g.n, flow, root, r, best.cut.num, best.routes);
      return best;
    }
    auto inside = net.reaching(g.n);
    inside.pop_back();
    Int held = 0;
    for (int r = 0; r < g.nranks; r++) held += inside[r];
    best.cut = {entering(g, inside), held, inside};
  }
}

}  // namespace blinkcoll::packing
