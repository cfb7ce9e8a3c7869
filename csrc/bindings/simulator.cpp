#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>

#include "bindings/bounds.h"
#include "simulator/simulation.h"

namespace nb = nanobind;

namespace blinkcoll {
namespace {

// links, latency_us, efficiency, read_links, read_us
using RouteTuple = std::tuple<std::vector<uint32_t>, double, double, std::vector<uint32_t>, double>;
using LoadsTuple = std::vector<std::vector<std::pair<uint32_t, double>>>;  // per rank: links, bytes on each per payload byte
using CostTuple = std::tuple<double, double, double>;                  // busy_us, copy and reduce bytes per microsecond
using RecordTuple = std::tuple<uint32_t, uint32_t, uint64_t, uint32_t, uint32_t, double, double, double, double>;

simulator::Route route(const RouteTuple& made) {
  return {std::get<0>(made), std::get<1>(made), std::get<2>(made), std::get<3>(made), std::get<4>(made)};
}

// A program's bytes, the machine it runs on, and what was prepared for the two.
class BoundPrepared {
 public:
  BoundPrepared(nb::bytes program, std::vector<double> link_rate, std::vector<double> memory_rate,
                  const std::vector<RouteTuple>& connections, const std::vector<CostTuple>& costs,
                  const std::vector<RouteTuple>& pairs, const LoadsTuple& group_out, const LoadsTuple& group_back, double group_latency_us)
      : program_(program.c_str(), program.size()) {
    ProgramView view{program_.data()};
    if (program_.size() < sizeof(ProgramHeader) || view.header().magic != kProgramMagic || view.header().version != kProgramVersion || view.header().nbytes != program_.size())
      throw std::invalid_argument("simulation: these bytes are not a program of this version");
    const ProgramHeader& h = view.header();
    if (memory_rate.size() != h.nranks || connections.size() != h.nconnections || costs.size() != h.nconnections + 1 || (!pairs.empty() && pairs.size() != size_t(h.nranks) * h.nranks))
      throw std::invalid_argument("simulation: the machine's tables do not fit the program");
    machine_.link_rate = std::move(link_rate);
    machine_.memory_rate = std::move(memory_rate);
    for (const RouteTuple& made : connections) machine_.connections.push_back(route(made));
    for (const RouteTuple& made : pairs) machine_.pairs.push_back(route(made));
    for (const auto* table : {&machine_.connections, &machine_.pairs})
      for (const simulator::Route& made : *table)
        for (const auto* links : {&made.links, &made.read_links})
          for (uint32_t link : *links)
            if (link >= machine_.link_rate.size()) throw std::invalid_argument("simulation: a route names a link that does not exist");
    set_group(machine_.group_out, group_out, h.nranks);
    set_group(machine_.group_back, group_back, h.nranks);
    machine_.group_latency_us = group_latency_us;
    for (const auto& [busy_us, copy_rate, reduce_rate] : costs) machine_.costs.push_back({busy_us, copy_rate, reduce_rate});
    prepared_ = std::make_unique<simulator::Prepared>(view, machine_);
  }
  BoundPrepared(const BoundPrepared&) = delete;

  const simulator::Prepared& prepared() const { return *prepared_; }
  const ProgramHeader& header() const { return ProgramView{program_.data()}.header(); }

 private:
  void set_group(std::vector<std::vector<simulator::Use>>& made, const LoadsTuple& given, uint32_t nranks) const {
    if (!given.empty() && given.size() != nranks) throw std::invalid_argument("simulation: the group's loads do not fit the program");
    for (const auto& of_rank : given) {
      auto& uses = made.emplace_back();
      for (const auto& [link, part] : of_rank) {
        if (link >= machine_.link_rate.size()) throw std::invalid_argument("simulation: a group names a link that does not exist");
        uses.push_back({link, part});
      }
    }
  }

  std::string program_;
  simulator::Machine machine_;
  std::unique_ptr<simulator::Prepared> prepared_;
};

// One run. Other threads go on meanwhile: it may be advanced by one at a time.
class BoundRun {
 public:
  BoundRun(const BoundPrepared& prepared, uint64_t count, uint32_t elem_size, uint64_t chunk_bytes, bool trace, std::vector<u64> bounds)
      : bounds_(std::move(bounds)) {
    const ProgramHeader& h = prepared.header();
    if (!bounds_.empty()) check_bounds(bounds_, h.nshards, count, h.equal_shards != 0);
    nb::gil_scoped_release unlocked;
    simulation_ = std::make_unique<simulator::Simulation>(prepared.prepared(), simulator::Simulation::Launch{count, chunk_bytes, elem_size, trace, bounds_.empty() ? nullptr : bounds_.data()});
  }
  BoundRun(const BoundRun&) = delete;

  bool advance(double within_us) {
    nb::gil_scoped_release unlocked;
    return simulation_->advance(within_us);
  }
  double least_end_us() const { return simulation_->least_end_us(); }
  double makespan_us() const { return simulation_->makespan_us(); }
  double longest_rank_us() const { return simulation_->longest_rank_us(); }
  uint64_t steps_run() const { return simulation_->steps_run(); }
  std::vector<double> link_bytes() const { return simulation_->link_bytes(); }
  std::vector<RecordTuple> records() const {
    std::vector<RecordTuple> made;
    made.reserve(simulation_->records().size());
    for (const simulator::Record& r : simulation_->records())
      made.emplace_back(r.channel, r.step, r.iteration, r.cause, r.cause_record, r.ready_us, r.start_us, r.end_us, r.nbytes);
    return made;
  }

 private:
  std::vector<u64> bounds_;
  std::unique_ptr<simulator::Simulation> simulation_;
};

}  // namespace

void bind_simulator(nb::module_& m) {
  nb::class_<BoundPrepared>(m, "Simulation", "A program on a machine, to be run for any size.")
      .def(nb::init<nb::bytes, std::vector<double>, std::vector<double>, const std::vector<RouteTuple>&, const std::vector<CostTuple>&, const std::vector<RouteTuple>&, const LoadsTuple&, const LoadsTuple&, double>(),
           nb::arg("program"), nb::arg("link_rate"), nb::arg("memory_rate"), nb::arg("connections"), nb::arg("costs"), nb::arg("pairs"), nb::arg("group_out"), nb::arg("group_back"), nb::arg("group_latency_us"));
  nb::class_<BoundRun>(m, "SimulatedRun", "One run of a simulation, which stands still before its first step.")
      .def(nb::init<const BoundPrepared&, uint64_t, uint32_t, uint64_t, bool, std::vector<u64>>(), nb::keep_alive<1, 2>(),
           nb::arg("simulation"), nb::arg("count"), nb::arg("elem_size"), nb::arg("chunk_bytes"), nb::arg("trace"), nb::arg("bounds"))
      .def("advance", &BoundRun::advance, nb::arg("within_us"),
           "go on to the end (true), or until it is sure not to come within so many microseconds (false): then it may go on later, within more")
      .def_prop_ro("least_end_us", &BoundRun::least_end_us, "no earlier than this, as far as was looked at")
      .def_prop_ro("makespan_us", &BoundRun::makespan_us)
      .def_prop_ro("longest_rank_us", &BoundRun::longest_rank_us)
      .def_prop_ro("steps_run", &BoundRun::steps_run)
      .def("link_bytes", &BoundRun::link_bytes, "bytes on the wire of each link")
      .def("records", &BoundRun::records, "(channel, step, iteration, cause, cause record, ready, start, end, bytes) of each step run, in order of their ends");
}

}  // namespace blinkcoll
