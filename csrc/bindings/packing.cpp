#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>

#include "packing/concurrent.h"
#include "packing/demands.h"
#include "packing/matroidunion.h"
#include "packing/peeling.h"
#include "packing/spanningtrees.h"
#include "packing/timelimit.h"
#include "packing/treepacking.h"
#include "packing/treeweights.h"

namespace nb = nanobind;
using Wide = __int128;

// Integers of up to 127 bits: Python's own cross over.
namespace nanobind::detail {
template <>
struct type_caster<Wide> {
  NB_TYPE_CASTER(Wide, const_name("int"))

  bool from_python(handle src, uint8_t, cleanup_list*) noexcept {
    if (!PyLong_Check(src.ptr())) return false;
    int overflow = 0;
    long long small = PyLong_AsLongLongAndOverflow(src.ptr(), &overflow);
    if (!overflow) {
      value = small;
      return true;
    }
    PyObject* bits = PyLong_FromLong(62);
    PyObject* high = PyNumber_Rshift(src.ptr(), bits);
    Py_DECREF(bits);
    if (!high) return PyErr_Clear(), false;
    long long top = PyLong_AsLongLongAndOverflow(high, &overflow);
    Py_DECREF(high);
    if (overflow) return false;
    unsigned long long low = PyLong_AsUnsignedLongLongMask(src.ptr()) & ((1ull << 62) - 1);
    value = Wide(top) * (Wide(1) << 62) + Wide(low);
    return true;
  }

  static handle from_cpp(Wide v, rv_policy, cleanup_list*) noexcept {
    if (v >= -(Wide(1) << 62) && v < (Wide(1) << 62)) return PyLong_FromLongLong((long long)v);
    PyObject *high = PyLong_FromLongLong((long long)(v >> 62)), *bits = PyLong_FromLong(62);
    PyObject* shifted = PyNumber_Lshift(high, bits);
    PyObject* low = PyLong_FromUnsignedLongLong((unsigned long long)(v & ((Wide(1) << 62) - 1)));
    PyObject* whole = PyNumber_Or(shifted, low);
    Py_DECREF(high), Py_DECREF(bits), Py_DECREF(shifted), Py_DECREF(low);
    return whole;
  }
};
}  // namespace nanobind::detail

namespace blinkcoll::packing {
namespace {

using ArcTuple = std::tuple<int, int, Wide>;
using TreeTuple = std::tuple<int, Wide, std::vector<std::pair<int, int>>>;
using WayTuple = std::tuple<int, int, std::vector<std::pair<std::vector<int>, Wide>>>;
using PackingTuple = std::tuple<std::vector<TreeTuple>, Wide, std::vector<WayTuple>, Wide, bool>;

template <class Int>
Digraph<Int> digraph(int n, int nranks, const std::vector<ArcTuple>& arcs) {
  Digraph<Int> g{n, nranks, {}};
  for (const auto& [from, to, cap] : arcs) {
    if (from < 0 || to < 0 || from >= n || to >= n || cap < 0) throw nb::value_error("packing: an arc is out of range");
    g.arcs.push_back({from, to, Int(cap)});
  }
  return g;
}

template <class Int>
std::vector<Int> narrowed(const std::vector<Wide>& values) {
  return std::vector<Int>(values.begin(), values.end());
}

std::vector<int> members(const std::vector<char>& inside) {
  std::vector<int> list;
  for (size_t v = 0; v < inside.size(); v++)
    if (inside[v]) list.push_back(int(v));
  return list;
}

template <class Int>
PackingTuple tuples(const Packing<Int>& packing) {
  std::vector<TreeTuple> trees;
  for (const auto& tree : packing.trees) trees.push_back({tree.root, Wide(tree.size), tree.arcs});
  std::vector<WayTuple> ways;
  for (const auto& [ends, pieces] : packing.ways) {
    std::vector<std::pair<std::vector<int>, Wide>> list;
    for (const auto& piece : pieces) list.push_back({piece.via, Wide(piece.cap)});
    if (!list.empty()) ways.push_back({ends.first, ends.second, list});
  }
  return {trees, Wide(packing.tree_scale), ways, Wide(packing.way_scale), packing.undirected};
}

template <class Int>
std::tuple<Wide, Wide, std::vector<int>> root_cut_of(int n, int nranks, const std::vector<ArcTuple>& arcs, const std::vector<Wide>& weights) {
  auto cut = root_cut(digraph<Int>(n, nranks, arcs), narrowed<Int>(weights));
  return {Wide(cut.num), Wide(cut.den), members(cut.inside)};
}

template <class Int>
std::tuple<Wide, Wide, std::vector<std::vector<int>>> strength_of(int n, int nranks, const std::vector<ArcTuple>& edges) {
  auto g = digraph<Int>(n, nranks, edges);
  auto s = StrengthSolver<Int>(g).solve();
  std::vector<std::vector<int>> parts;
  for (const auto& part : s.parts) parts.push_back(members(part));
  return {Wide(s.num), Wide(s.den), parts};
}

template <class Int>
PackingTuple pack_shares_of(int n, int nranks, const std::vector<ArcTuple>& arcs, const std::vector<Wide>& shares, unsigned seed, bool shallow) {
  return tuples(pack_shares(digraph<Int>(n, nranks, arcs), narrowed<Int>(shares), {seed, shallow}));
}

template <class Int>
PackingTuple pack_undirected_of(int n, int nranks, const std::vector<ArcTuple>& edges, int root, unsigned seed, bool shallow) {
  auto g = digraph<Int>(n, nranks, edges);
  return tuples(pack_undirected(g, StrengthSolver<Int>(g).solve(), root, {seed, shallow}));
}

template <class Int>
std::vector<std::vector<int>> violated_cuts_of(int n, int nranks, const std::vector<ArcTuple>& arcs, const std::vector<Wide>& shares) {
  std::vector<std::vector<int>> sets;
  for (const auto& inside : violated_cuts(digraph<Int>(n, nranks, arcs), narrowed<Int>(shares))) sets.push_back(members(inside));
  return sets;
}

template <class Int>
std::tuple<Wide, Wide, std::vector<int>, std::vector<std::pair<std::vector<int>, Wide>>> demands_of(int n, int nranks, const std::vector<ArcTuple>& arcs, int root) {
  auto solved = demands(digraph<Int>(n, nranks, arcs), root);
  std::vector<std::pair<std::vector<int>, Wide>> routes;
  for (const auto& route : solved.routes) routes.push_back({route.path, Wide(route.size)});
  return {Wide(solved.cut.num), Wide(solved.cut.den), members(solved.cut.inside), routes};
}

// [(path, rounds that used it)] for every ordered pair, and a length for every arc.
std::pair<std::vector<std::pair<std::vector<int>, int>>, std::vector<double>> concurrent_flow(int n, int nranks, const std::vector<std::tuple<int, int, double>>& arcs, int rounds, double epsilon) {
  Digraph<double> g{n, nranks, {}};
  for (const auto& [from, to, cap] : arcs) g.arcs.push_back({from, to, cap});
  auto flow = ConcurrentSolver(g, epsilon).solve(rounds);
  std::vector<std::pair<std::vector<int>, int>> routes;
  std::map<std::vector<int>, int> count;
  for (int s = 0; s < nranks; s++) {
    for (int t = 0; t < nranks; t++) {
      if (s == t) continue;
      count.clear();
      for (int round = 0; round < rounds; round++) {
        const auto& parent = flow.parents[size_t(round) * nranks + s];
        std::vector<int> path{t};
        while (path.back() != s) path.push_back(g.arcs[parent[path.back()]].from);
        std::reverse(path.begin(), path.end());
        count[path]++;
      }
      routes.insert(routes.end(), count.begin(), count.end());
    }
  }
  return {routes, flow.lengths};
}

using SmallArcTuple = std::tuple<int, int, double>;

std::vector<SmallArc> small_arcs(int n, const std::vector<SmallArcTuple>& arcs, int root) {
  std::vector<SmallArc> list;
  for (const auto& [from, to, cap] : arcs) {
    if (from < 0 || to < 0 || from >= n || to >= n || from == to || !(cap > 0)) throw nb::value_error("packing: an arc is out of range");
    list.push_back({from, to, cap});
  }
  if (n < 2 || root < 0 || root >= n) throw nb::value_error("packing: no such root");
  return list;
}

std::vector<std::pair<uint64_t, int>> spanning_trees(int n, const std::vector<SmallArcTuple>& arcs, int root, bool undirected, size_t most, unsigned seed) {
  if (n > 63 || arcs.size() > 64) throw nb::value_error("spanning_trees: at most 63 vertices and 64 arcs");
  return SpanningTrees(n, small_arcs(n, arcs, root), undirected).list(root, most, seed);
}

std::pair<std::vector<std::pair<std::vector<int>, double>>, long long> weigh_trees(int n, const std::vector<SmallArcTuple>& arcs, int root, bool undirected, double epsilon) {
  auto [taken, rounds] = TreeWeights(n, small_arcs(n, arcs, root), undirected, root).pack(epsilon);
  return {{taken.begin(), taken.end()}, rounds};
}

Peeler peeler(std::vector<double> capacity, const std::vector<std::pair<uint64_t, std::vector<int>>>& rows, const std::vector<std::tuple<uint64_t, int, int>>& trees, size_t nroots) {
  std::vector<PeelRow> row_list;
  for (const auto& [arcs, demand] : rows) {
    if (demand.size() != nroots) throw nb::value_error("peeler: a row has a demand for every root");
    row_list.push_back({arcs, demand});
  }
  std::vector<PeelTree> tree_list;
  for (const auto& [arcs, root, depth] : trees) {
    if (root < 0 || size_t(root) >= nroots || (capacity.size() < 64 && arcs >> capacity.size())) throw nb::value_error("peeler: a tree is out of range");
    tree_list.push_back({arcs, root, depth});
  }
  return Peeler(std::move(capacity), std::move(row_list), std::move(tree_list));
}

template <class Int>
void bind(nb::module_& m) {
  using Free = nb::call_guard<nb::gil_scoped_release>;
  m.def("root_cut", &root_cut_of<Int>, Free(), nb::arg("n"), nb::arg("nranks"), nb::arg("arcs"), nb::arg("weights"),
        "(num, den, vertices): the largest t for which t * weights[r] arborescences rooted at r fit, and the cut");
  m.def("strength", &strength_of<Int>, Free(), nb::arg("n"), nb::arg("nranks"), nb::arg("edges"),
        "(num, den, parts): how many undirected trees fit, and the partition");
  m.def("pack_shares", &pack_shares_of<Int>, Free(), nb::arg("n"), nb::arg("nranks"), nb::arg("arcs"), nb::arg("shares"), nb::arg("seed"), nb::arg("shallow"),
        "(trees, tree_scale, ways, way_scale, undirected): shares[r] arborescences rooted at r");
  m.def("pack_undirected", &pack_undirected_of<Int>, Free(), nb::arg("n"), nb::arg("nranks"), nb::arg("edges"), nb::arg("root"), nb::arg("seed"), nb::arg("shallow"),
        "(trees, tree_scale, ways, way_scale, undirected): as many undirected trees as fit");
  m.def("violated_cuts", &violated_cuts_of<Int>, Free(), nb::arg("n"), nb::arg("nranks"), nb::arg("arcs"), nb::arg("shares"),
        "sets that too little enters for shares[r] arborescences rooted at r; none where they fit");
  m.def("demands", &demands_of<Int>, Free(), nb::arg("n"), nb::arg("nranks"), nb::arg("arcs"), nb::arg("root"),
        "(num, den, vertices, routes): the largest t that root can send every rank at once, the cut, paths scaled by den");
}

}  // namespace
}  // namespace blinkcoll::packing

namespace blinkcoll {

// The same functions over 64-bit and over 128-bit integers; the caller picks the ones that cannot overflow.
void bind_packing(nb::module_& m) {
  nb::exception<packing::TimeLimitReached>(m, "TimeLimitReached", PyExc_TimeoutError);
  m.def("set_time_limit", &packing::set_time_limit, nb::arg("seconds"), "How long packings of this thread may take from now on, in all; 0: for ever.");
  auto narrow = m.def_submodule("packing64", "packing in 64-bit integers");
  packing::bind<long long>(narrow);
  m.def("concurrent_flow", &packing::concurrent_flow, nb::call_guard<nb::gil_scoped_release>(), nb::arg("n"), nb::arg("nranks"), nb::arg("arcs"), nb::arg("rounds"), nb::arg("epsilon"),
        "(routes, lengths): paths with the number of rounds that used them, all pairs, and the dual; approximate");
  m.def("pack_forests", [](int n, int nforests, std::vector<std::pair<int, int>> edges) {
    for (const auto& [u, v] : edges) {
      if (u < 0 || v < 0 || u >= n || v >= n || u == v) throw nb::value_error("pack_forests: an edge is out of range");
    }
    return packing::ForestPacker(n, nforests, std::move(edges)).pack();
  }, nb::call_guard<nb::gil_scoped_release>(), nb::arg("n"), nb::arg("nforests"), nb::arg("edges"),
        "Edge-disjoint spanning trees of a multigraph, nforests where there are so many.");
  m.def("spanning_trees", &packing::spanning_trees, nb::call_guard<nb::gil_scoped_release>(), nb::arg("n"), nb::arg("arcs"), nb::arg("root"), nb::arg("undirected"), nb::arg("most"), nb::arg("seed"),
        "[(arcs as bits, depth)]: all spanning trees from a root, or `most` random ones where there are more.");
  m.def("weigh_trees", &packing::weigh_trees, nb::call_guard<nb::gil_scoped_release>(), nb::arg("n"), nb::arg("arcs"), nb::arg("root"), nb::arg("undirected"), nb::arg("epsilon"),
        "([(arcs, weight)], rounds): trees by multiplicative weights, to be scaled to the capacities.");
  nb::class_<packing::Peeler>(m, "Peeler", "Few trees of those given that carry given rates; see csrc/packing/peeling.h.")
      .def("solve", [](packing::Peeler& p, const std::vector<double>& rates, int most, int enough, int depth, long long work, double seconds, unsigned seed) {
        return p.solve(rates, {most, enough, depth, work, seconds}, seed);
      }, nb::call_guard<nb::gil_scoped_release>(), nb::arg("rates"), nb::arg("most"), nb::arg("enough"), nb::arg("depth"), nb::arg("work"), nb::arg("seconds"), nb::arg("seed"),
        "Numbers of the fewest trees found (fewer than `most`), none where none were.");
  m.def("peeler", &packing::peeler, nb::arg("capacity"), nb::arg("rows"), nb::arg("trees"), nb::arg("nroots"), "The search for arcs' capacities, rows (arcs, demand of each root) and trees (arcs, root, depth).");
  auto wide = m.def_submodule("packing128", "packing in 128-bit integers");
  packing::bind<Wide>(wide);
}

}  // namespace blinkcoll
