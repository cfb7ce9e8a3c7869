#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>

#include "packing/arborescences.h"
#include "packing/rootcut.h"
#include "packing/strength.h"

namespace nb = nanobind;

namespace blinkcoll::packing {
namespace {

using Int = long long;
using ArcTuple = std::tuple<int, int, Int>;
using TreeTuple = std::tuple<int, Int, std::vector<std::pair<int, int>>>;

Digraph<Int> digraph(int n, int nranks, const std::vector<ArcTuple>& arcs) {
  Digraph<Int> g{n, nranks, {}};
  for (const auto& [from, to, cap] : arcs) {
    if (from < 0 || to < 0 || from >= n || to >= n || cap < 0) throw nb::value_error("packing: an arc is out of range");
    g.arcs.push_back({from, to, cap});
  }
  return g;
}

std::vector<ArcTuple> tuples(const Digraph<Int>& g) {
  std::vector<ArcTuple> arcs;
  for (const auto& arc : g.arcs) arcs.push_back({arc.from, arc.to, arc.cap});
  return arcs;
}

std::vector<int> members(const std::vector<char>& inside) {
  std::vector<int> list;
  for (size_t v = 0; v < inside.size(); v++)
    if (inside[v]) list.push_back(int(v));
  return list;
}

std::tuple<Int, Int, std::vector<int>> root_cut_of(int n, int nranks, const std::vector<ArcTuple>& arcs, const std::vector<Int>& weights) {
  auto cut = root_cut(digraph(n, nranks, arcs), weights);
  return {cut.num, cut.den, members(cut.inside)};
}

std::tuple<Int, Int, std::vector<std::vector<int>>, std::vector<ArcTuple>> strength_of(int n, int nranks, const std::vector<ArcTuple>& edges, int root) {
  auto g = digraph(n, nranks, edges);
  auto s = StrengthSolver<Int>(g).solve();
  std::vector<std::vector<int>> parts;
  for (const auto& part : s.parts) parts.push_back(members(part));
  return {s.num, s.den, parts, s.num > 0 ? tuples(orient(g, s, root)) : std::vector<ArcTuple>()};
}

std::vector<TreeTuple> pack_arborescences(int n, const std::vector<ArcTuple>& arcs, const std::vector<Int>& shares) {
  std::vector<TreeTuple> trees;
  for (auto& tree : ArborescencePacker<Int>(digraph(n, n, arcs), shares).pack()) trees.push_back({tree.root, tree.size, tree.arcs});
  return trees;
}

}  // namespace
}  // namespace blinkcoll::packing

namespace blinkcoll {

void bind_packing(nb::module_& m) {
  m.def("root_cut", &packing::root_cut_of, nb::arg("n"), nb::arg("nranks"), nb::arg("arcs"), nb::arg("weights"),
        "(num, den, vertices): the largest t for which t * weights[r] arborescences rooted at r fit, and the cut");
  m.def("strength", &packing::strength_of, nb::arg("n"), nb::arg("nranks"), nb::arg("edges"), nb::arg("root"),
        "(num, den, parts, arcs): how many undirected trees fit, and an orientation scaled by 2 * den");
  m.def("pack_arborescences", &packing::pack_arborescences, nb::arg("n"), nb::arg("arcs"), nb::arg("shares"),
        "[(root, size, arcs)]: arborescences, shares[r] of them rooted at r");
}

}  // namespace blinkcoll
