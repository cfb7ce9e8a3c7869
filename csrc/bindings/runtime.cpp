#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <stdexcept>

#include "blinkcoll/dispatch.h"
#include "host/run.h"

namespace nb = nanobind;

namespace blinkcoll {
namespace {

Launch launch_from(const nb::bytes& bytes) {
  if (bytes.size() != sizeof(Launch)) throw std::invalid_argument("a launch record of the wrong size");
  Launch launch;
  std::memcpy(&launch, bytes.c_str(), sizeof launch);
  return launch;
}

}  // namespace

void bind_runtime(nb::module_& m) {
  m.def("run_rank", [](const nb::bytes& launch) {
    Launch record = launch_from(launch);
    nb::gil_scoped_release release;
    return run_rank(record);
  }, nb::arg("launch"), "Run one rank on the calling thread; its addresses must be valid here.");
  m.def("run_threads", [](const std::vector<nb::bytes>& launches) {
    std::vector<Launch> records;
    for (const nb::bytes& launch : launches) records.push_back(launch_from(launch));
    bool stopped = false;
    std::vector<bool> ran;
    {
      nb::gil_scoped_release release;
      ran = run_threads(records, [&] {
        nb::gil_scoped_acquire acquire;
        stopped = stopped || PyErr_CheckSignals() != 0;
        return stopped;
      });
    }
    if (stopped) throw nb::python_error();  // KeyboardInterrupt, as a rule
    return ran;
  }, nb::arg("launches"), "Run every rank on a thread of its own.");
  m.def("can_reduce", [](u32 dtype, u32 op, bool premultiplied, bool divided) { return can_reduce(dtype, op, premultiplied, divided); },
        nb::arg("dtype"), nb::arg("op"), nb::arg("premultiplied"), nb::arg("divided"), "Whether there is a mover for this.");
  m.def("can_reduce_in_switch", [](u32 dtype, u32 op) { return can_reduce_in_switch(dtype, op); }, nb::arg("dtype"), nb::arg("op"), "Whether a switch can reduce this.");
  m.def("slot_stride", &slot_stride, nb::arg("protocol"), nb::arg("payload"), "Bytes of a slot that holds `payload` bytes by a protocol.");
  m.def("headed_stride", &headed_stride, nb::arg("payload"), "Bytes of a slot that holds `payload` bytes behind its own counter.");
  m.def("layout_sizes", [] {
    return std::map<std::string, size_t>{
        {"ProgramHeader", sizeof(ProgramHeader)}, {"RankEntry", sizeof(RankEntry)}, {"ConnectionEntry", sizeof(ConnectionEntry)},
        {"ChannelEntry", sizeof(ChannelEntry)}, {"StepEntry", sizeof(StepEntry)}, {"OperandEntry", sizeof(OperandEntry)},
        {"SyncEntry", sizeof(SyncEntry)}, {"AfterEntry", sizeof(AfterEntry)}, {"Launch", sizeof(Launch)},
        {"BufferAddresses", sizeof(BufferAddresses)}, {"ConnectionAddresses", sizeof(ConnectionAddresses)},
        {"CounterLine", sizeof(CounterLine)}, {"ChannelRecord", sizeof(ChannelRecord)}, {"line", kLineBytes}, {"most_operands", kMostOperands}};
  }, "Sizes of the structs that Python mirrors.");
}

}  // namespace blinkcoll
