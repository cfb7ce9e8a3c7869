#include <nanobind/nanobind.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>
#include <utility>

#include "simulator/nccl_search.h"

namespace nb = nanobind;

namespace blinkcoll {
namespace {

using nccl::Graph;
using nccl::Machine;
using nccl::Path;
using nccl::Rules;
using nccl::Search;

// A path as (type, gb_s, overhead, [(link, reverse, pcie)]).
using PathTuple = std::tuple<int, float, bool, std::vector<std::tuple<int, int, bool>>>;

Search make_search(int ngpus, bool nvswitch, std::vector<float> links, const std::vector<PathTuple>& paths, const Rules& rules) {
  Machine machine{ngpus, nvswitch, std::move(links), {}};
  for (const auto& [type, gb_s, overhead, steps] : paths) {
    Path path{type, gb_s, overhead, {}};
    for (const auto& [link, reverse, pcie] : steps) path.steps.push_back({link, reverse, pcie});
    machine.paths.push_back(std::move(path));
  }
  return Search(std::move(machine), rules);
}

}  // namespace

void bind_nccl(nb::module_& m) {
  nb::class_<Rules>(m, "NcclRules", "Where versions of NCCL's inner search differ.")
      .def(nb::init<>())
      .def_rw("both_ways", &Rules::both_ways)
      .def_rw("nvswitch_neighbours", &Rules::nvswitch_neighbours)
      .def_rw("same_pattern_hops", &Rules::same_pattern_hops)
      .def_rw("overhead_mul", &Rules::overhead_mul)
      .def_rw("overhead_div", &Rules::overhead_div);
  nb::class_<Graph>(m, "NcclGraph", "The demands on a graph and the channels found; order[channel * ngpus + position] is a GPU.")
      .def(nb::init<>())
      .def("copy", [](const Graph& g) { return Graph(g); })
      .def_rw("pattern", &Graph::pattern)
      .def_rw("min_channels", &Graph::min_channels)
      .def_rw("max_channels", &Graph::max_channels)
      .def_rw("bw_intra", &Graph::bw_intra)
      .def_rw("bw_inter", &Graph::bw_inter)
      .def_rw("type_intra", &Graph::type_intra)
      .def_rw("same_channels", &Graph::same_channels)
      .def_rw("nchannels", &Graph::nchannels)
      .def_rw("nhops", &Graph::nhops)
      .def_rw("order", &Graph::order);
  nb::class_<Search>(m, "NcclSearch", "The inner search on one server; keeps what is left of the links between runs.")
      .def("__init__", [](Search* self, int ngpus, bool nvswitch, std::vector<float> links, const std::vector<PathTuple>& paths, const Rules& rules) {
        new (self) Search(make_search(ngpus, nvswitch, std::move(links), paths, rules));
      }, nb::arg("ngpus"), nb::arg("nvswitch"), nb::arg("links"), nb::arg("paths"), nb::arg("rules"))
      .def("run", &Search::run, nb::arg("trial"), nb::arg("best"), nb::arg("steps"), "Steps left; 0: gave up, -1: nothing better can exist. Replaces best by what it finds.");
}

}  // namespace blinkcoll
