// Removing switches: every unit of capacity through a switch s becomes an arc u -> v that remembers its way.
//
// Directed edge splitting keeps "shares[r] arborescences rooted at r fit" where s gives out what it takes in
// (Bang-Jensen, Frank and Jackson, Preserving and increasing local edge-connectivity in mixed graphs, 1995; used for
// switches by ForestColl, arXiv 2402.06787, section 5.2). Splitting gamma of (u, s), (s, v) off lowers in(A) by gamma where A
// holds u and v but not s, or s but neither u nor v; the least slack over those A is found by flows, so that each pair is
// split as far as it can be. Before that a whole switch is tried at once: what a port gets goes evenly to one port of
// each other group (groups are what stays joined without switches), which is how equal servers or GPUs are wired and
// leads to few, shallow trees; it is kept where a check by flows shows that nothing was lost.
#pragma once

#include <map>
#include <stdexcept>

#include "flow.h"
#include "graph.h"
#include "strength.h"

namespace blinkcoll::packing {

// Capacity along a path: the switches on the way, possibly none.
template <class Int>
struct Piece {
  std::vector<int> via;
  Int cap;
};

template <class Int>
class SwitchRemover {
 public:
  using Pool = std::map<std::pair<int, int>, std::vector<Piece<Int>>>;

  SwitchRemover(const Digraph<Int>& g, std::vector<Int> shares) : n_(g.n), nranks_(g.nranks), shares_(std::move(shares)) {
    for (const auto& arc : g.arcs)
      if (arc.cap > 0) pool_[{arc.from, arc.to}].push_back({{}, arc.cap});
    all_ = std::accumulate(shares_.begin(), shares_.end(), Int(0));
  }

  // Directed: keeps the shares. Capacities and shares may come out scaled by `factor()`.
  void remove_all() {
    for (int s : switches()) {
      if (!in_bulk(s, [this] { return shares_fit(rest(), shares_); })) {
        for (auto [u, v] : pairs(s)) split_off(u, s, v);
        if (left(s)) throw std::logic_error("splitting: capacity is left at a switch");
      }
    }
  }

  // Undirected (every arc has a twin of equal capacity): keeps `trees` undirected spanning trees (per factor()), and
  // says whether it could; only tries switches as a whole.
  bool remove_all_undirected(Int num, Int den) {
    for (int s : switches()) {
      if (!in_bulk(s, [this, num, den] { return holds(num * factor_, den); })) return false;
    }
    return true;
  }

  const Pool& pool() const { return pool_; }
  Int factor() const { return factor_; }

  Digraph<Int> rest() const {
    Digraph<Int> g{n_, nranks_, {}};
    for (const auto& [ends, pieces] : pool_) {
      Int cap = total(pieces);
      if (cap > 0) g.arcs.push_back({ends.first, ends.second, cap});
    }
    return g;
  }

 private:
  static Int total(const std::vector<Piece<Int>>& pieces) {
    Int sum = 0;
    for (const auto& piece : pieces) sum += piece.cap;
    return sum;
  }
  Int cap(int u, int v) const {
    auto found = pool_.find({u, v});
    return found == pool_.end() ? Int(0) : total(found->second);
  }
  std::vector<int> into(int s) const {
    std::vector<int> list;
    for (const auto& [ends, pieces] : pool_)
      if (ends.second == s && total(pieces) > 0) list.push_back(ends.first);
    return list;
  }
  std::vector<int> out_of(int s) const {
    std::vector<int> list;
    for (const auto& [ends, pieces] : pool_)
      if (ends.first == s && total(pieces) > 0) list.push_back(ends.second);
    return list;
  }
  bool left(int s) const { return !into(s).empty() || !out_of(s).empty(); }

  // Those with few neighbours first.
  std::vector<int> switches() const {
    std::vector<std::pair<size_t, int>> order;
    for (int s = nranks_; s < n_; s++) order.push_back({into(s).size() + out_of(s).size(), s});
    std::sort(order.begin(), order.end());
    std::vector<int> list;
    for (const auto& entry : order) list.push_back(entry.second);
    return list;
  }

  bool holds(Int num, Int den) const {
    Digraph<Int> edges = rest();
    edges.arcs.erase(std::remove_if(edges.arcs.begin(), edges.arcs.end(), [](const auto& arc) { return arc.from > arc.to; }), edges.arcs.end());
    return StrengthSolver<Int>(edges).holds(num, den);
  }

  // -- a switch as a whole ----------------------------------------------------------------------------------------

  template <class Check>
  bool in_bulk(int s, Check check) {
    auto ports = into(s);
    if (ports != out_of(s)) return false;
    if (ports.empty()) return true;
    auto groups = groups_of(ports);
    Int width = cap(ports[0], s), others = Int(groups.size()) - 1;
    if (others == 0) return false;
    for (const auto& group : groups)
      if (group.size() != groups[0].size()) return false;
    for (int port : ports)
      if (cap(port, s) != width || cap(s, port) != width) return false;
    Pool before = pool_;
    Int old_factor = factor_;
    if (width % others != 0) scale(others / gcd_of(width, others));
    Int part = cap(ports[0], s) / others;
    for (const auto& from : groups)
      for (const auto& to : groups)
        for (size_t i = 0; &from != &to && i < from.size(); i++) move(from[i], s, to[i], part);
    if ((ports.size() == 2 && groups.size() == 2) || check()) return true;
    if (factor_ != old_factor) {
      for (auto& share : shares_) share /= factor_ / old_factor;
      all_ /= factor_ / old_factor;
      factor_ = old_factor;
    }
    pool_ = std::move(before);
    return false;
  }

  // Ports that stay joined when no switch is left, in the order of their numbers.
  std::vector<std::vector<int>> groups_of(const std::vector<int>& ports) const {
    std::vector<int> head(n_);
    std::iota(head.begin(), head.end(), 0);
    auto find = [&](int v) {
      while (head[v] != v) v = head[v] = head[head[v]];
      return v;
    };
    for (const auto& [ends, pieces] : pool_)
      if (ends.first < nranks_ && ends.second < nranks_ && total(pieces) > 0) head[find(ends.first)] = find(ends.second);
    std::map<int, std::vector<int>> by_head;
    for (int port : ports) by_head[find(port)].push_back(port);
    std::vector<std::vector<int>> groups;
    for (auto& entry : by_head) groups.push_back(entry.second);
    std::sort(groups.begin(), groups.end());
    return groups;
  }

  // Solvers on top scale by another 2 (ranks) at most and add over all arcs: leave them room.
  void scale(Int by) {
    Int sum = all_;
    for (const auto& entry : pool_) sum += total(entry.second);
    if (sum > largest<Int>() / by / (16 * Int(n_) * n_)) throw std::overflow_error("splitting: capacities need more bits");
    for (auto& entry : pool_)
      for (auto& piece : entry.second) piece.cap *= by;
    for (auto& share : shares_) share *= by;
    all_ *= by;
    factor_ *= by;
  }

  // -- pair by pair -----------------------------------------------------------------------------------------------

  // Pairs of ports, those that lead back where they came from last.
  std::vector<std::pair<int, int>> pairs(int s) const {
    std::vector<std::pair<int, int>> list;
    auto sources = into(s), targets = out_of(s);
    for (int round = 0; round < 2; round++)
      for (int v : targets)
        for (int u : sources)
          if ((u == v) == (round == 1)) list.push_back({u, v});
    return list;
  }

  void split_off(int u, int s, int v) {
    Int gamma = std::min(cap(u, s), cap(s, v));
    if (gamma <= 0) return;
    Digraph<Int> g = rest();
    // Sets with u and v inside and s outside. One of u and v is mostly a rank, otherwise each rank is tried inside.
    bool holds_rank = u < nranks_ || v < nranks_;
    gamma = slack(g, {s}, {u, v}, !holds_rank, gamma);
    if (gamma > 0) gamma = slack(g, {u, v}, {s}, true, gamma);
    if (gamma > 0) move(u, s, v, gamma);
  }

  // The least in(A) + shares(A) - (all shares), up to `most`, over sets A that hold `inside`, none of `outside`, and
  // (`with_rank`) some rank.
  Int slack(const Digraph<Int>& g, std::vector<int> outside, std::vector<int> inside, bool with_rank, Int most) {
    Int infinite = all_ + most;
    int source = n_, sink = n_ + 1;
    FlowNetwork<Int> net(n_ + 2);
    for (const auto& arc : g.arcs) net.add(arc.from, arc.to, arc.cap);
    for (int r = 0; r < nranks_; r++)
      if (shares_[r] > 0) net.add(source, r, shares_[r]);
    for (int v : outside) net.add(source, v, infinite);
    for (int v : inside) net.add(v, sink, infinite);
    Int sent = net.send(source, sink, all_ + most);
    if (!with_rank || sent == all_ + most) return sent - all_;
    for (int r = 0; r < nranks_ && most > 0; r++) {
      if (std::find(outside.begin(), outside.end(), r) != outside.end()) continue;
      FlowNetwork<Int> more = net;
      more.add(r, sink, infinite);
      if (sent < all_ + most) most = std::min<Int>(most, sent + more.send(source, sink, all_ + most - sent) - all_);
    }
    return most;
  }

  // Turns `amount` of u -> s -> v into u -> v; nothing is left of it where u is v.
  void move(int u, int s, int v, Int amount) {
    while (amount > 0) {
      auto &first = pool_[{u, s}], &second = pool_[{s, v}];
      auto &a = first.back(), &b = second.back();
      Int part = std::min({amount, a.cap, b.cap});
      if (u != v) {
        add(u, v, {joined(a.via, s, b.via), part});
      }
      amount -= part;
      a.cap -= part;
      b.cap -= part;
      if (a.cap == 0) first.pop_back();
      if (b.cap == 0) second.pop_back();
    }
  }

  // The way over `first`, s and `second`; where it comes through a switch twice, the loop is left out.
  static std::vector<int> joined(const std::vector<int>& first, int s, const std::vector<int>& second) {
    std::vector<int> whole(first), simple;
    whole.push_back(s);
    whole.insert(whole.end(), second.begin(), second.end());
    for (int v : whole) {
      auto seen = std::find(simple.begin(), simple.end(), v);
      simple.erase(seen, simple.end());
      simple.push_back(v);
    }
    return simple;
  }

  void add(int u, int v, Piece<Int> piece) {
    auto& pieces = pool_[{u, v}];
    for (auto& other : pieces)
      if (other.via == piece.via) {
        other.cap += piece.cap;
        return;
      }
    pieces.push_back(std::move(piece));
  }

  int n_, nranks_;
  std::vector<Int> shares_;
  Pool pool_;
  Int all_ = 0, factor_ = 1;
};

}  // namespace blinkcoll::packing
