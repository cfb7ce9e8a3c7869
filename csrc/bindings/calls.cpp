#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <stdexcept>
#include <system_error>

#include "bindings/heldbuffer.h"
#include "bindings/pythoncaller.h"
#include "blinkcoll/dispatch.h"
#include "host/calls.h"
#include "host/callword.h"
#include "host/fences.h"
#include "host/peers.h"
#include "host/run.h"

namespace nb = nanobind;

namespace blinkcoll {
namespace {

// An operation as callers number it: kPremultiplied is a sum, with factors.
CallKind kind_of(u32 dtype, u32 elem_size, u32 op, u32 divisor, double prescale) {
  const bool premultiplied = op == kPremultiplied;
  return {dtype, elem_size, premultiplied ? u32(kSum) : op, divisor, prescale, premultiplied};
}

int run_objects(HostCalls& calls, u32 table, nb::handle input, nb::handle output, u32 op, u32 divisor, double prescale, u64 timeout_ns) {
  HeldBuffer from, to;
  const bool in_place = output.is_none();
  if (!from.take(input.ptr(), in_place)) return kNotPlain;
  if (!in_place && (!to.take(output.ptr(), true) || to.dtype != from.dtype)) return kNotPlain;
  const CallKind kind = kind_of(from.dtype, from.elem_size(), op, divisor, prescale);
  const UserBuffer a = from.buffer(), b = in_place ? a : to.buffer();
  return call(calls, table, a, in_place ? nullptr : &b, kind, timeout_ns) ? kDone : kOutOfTime;
}

int run_addresses(HostCalls& calls, u32 table, u64 input, u64 input_count, u64 output, u64 output_count, bool in_place, u32 dtype, u32 elem_size,
                  u32 op, u32 divisor, double prescale, u64 timeout_ns, const std::vector<u64>& bounds, const std::vector<u64>& places) {
  const UserBuffer a{input, input_count}, b{output, output_count};
  const UnevenShards shards{bounds.data(), places.empty() ? nullptr : places.data()};
  CallKind kind = kind_of(dtype, elem_size, op, divisor, prescale);
  if (!bounds.empty()) kind.shards = &shards;
  return call(calls, table, a, in_place ? nullptr : &b, kind, timeout_ns) ? kDone : kOutOfTime;
}

}  // namespace

void bind_calls(nb::module_& m) {
  m.def("join_fences", &join_fences, "Whether this process takes part in membarrier(2) from now on, and may fence.");
  m.def("fences_are_prompt", &fences_are_prompt, nb::call_guard<nb::gil_scoped_release>(), "Whether they take microseconds here; measured once, having joined.");
  m.def("read_memory", [](int process, u64 address, u64 nbytes) {
    std::string held(nbytes, '\0');
    Peers peers(&process);
    if (!peers.read(0, held.data(), pointer<const char>(address), nbytes)) throw std::system_error(peers.error(), std::generic_category(), "process " + std::to_string(process));
    return nb::bytes(held.data(), held.size());
  }, nb::arg("process"), nb::arg("address"), nb::arg("nbytes"), "Bytes of another process's memory.");
  m.def("write_memory", [](int process, u64 address, const nb::bytes& held) {
    Peers peers(&process);
    if (!peers.write(0, pointer<char>(address), held.c_str(), held.size())) throw std::system_error(peers.error(), std::generic_category(), "process " + std::to_string(process));
  }, nb::arg("process"), nb::arg("address"), nb::arg("held"), "Bytes into another process's memory.");
  m.attr("STORES") = nb::make_tuple(u32(kThroughCaches), u32(kSlotsPast), u32(kOutputsPast), u32(kAllPast), u32(kBySize));
  m.attr("SPREAD_CHUNKS") = kSpreadChunks;
  m.attr("LEAST_SPREAD") = kLeastSpread;
  nb::class_<Choice>(m, "Choice", "Which of several ways calls go, by what each cost lately.")
      .def(nb::init<u32, bool>(), nb::arg("nways"), nb::arg("large") = false)
      .def_prop_ro("way", &Choice::way, "That of the next calls.")
      .def_prop_ro("cost", &Choice::cost, "What it cost lately; 0: it is on trial.")
      .def("learn", &Choice::learn, nb::arg("cost"), nb::arg("calls"), "So many calls went that way, and the first one cost so much.")
      .def("of_others", &Choice::of_others, nb::arg("likely") = true, "Of calls that are much like these.")
      .def_prop_ro("goes_on", &Choice::goes_on, "Whether a trial goes on after its first call: several may come before the next ones are looked at.");
  nb::class_<HostCalls>(m, "HostCalls", "One rank's programs, set up once, and calls of them.")
      .def(nb::init<u32, u32>(), nb::arg("rank"), nb::arg("nranks"))
      .def("add_program", [](HostCalls& calls, const nb::bytes& record, const nb::bytes& code, const nb::bytes& connections, bool pooled) {
        if (record.size() != sizeof(Launch)) throw std::invalid_argument("a launch record of the wrong size");
        Launch launch;
        std::memcpy(&launch, record.c_str(), sizeof launch);
        return calls.add_program(launch, {code.c_str(), code.size()}, {connections.c_str(), connections.size()}, pooled);
      }, nb::arg("record"), nb::arg("code"), nb::arg("connections"), nb::arg("pooled"))
      .def("add_table", [](HostCalls& calls, int input, int output, const std::vector<std::tuple<u64, u32, bool, u32, bool>>& entries, u64 word, bool apart) {
        std::vector<TableEntry> table;
        for (const auto& [most_bytes, program, premultiplies, stores, spread] : entries) table.push_back({most_bytes, program, premultiplies, Stores(stores), spread});
        return calls.add_table(View(input), View(output), std::move(table), word, apart);
      }, nb::arg("input"), nb::arg("output"), nb::arg("entries"), nb::arg("word") = 0, nb::arg("apart") = false)
      .def("set_boards", &HostCalls::set_boards, nb::arg("boards"), nb::arg("peer"), nb::arg("compared"), nb::keep_alive<1, 2>())
      .def("announce", &HostCalls::announce, nb::arg("word"), nb::call_guard<nb::gil_scoped_release>())
      .def("cancel", &HostCalls::cancel, nb::call_guard<nb::gil_scoped_release>())
      .def("wake", &HostCalls::wake, "Wake whoever sleeps in a call.")
      .def("settle", &HostCalls::settle, nb::call_guard<nb::gil_scoped_release>(), "Return once no call is under way.")
      .def("close", &HostCalls::close, nb::call_guard<nb::gil_scoped_release>(), "The same, and refuse all calls from then on.")
      .def_prop_ro("inside", &HostCalls::inside, "Whether this thread is in the middle of a call.")
      .def_prop_ro("busy", &HostCalls::busy)
      .def("set_processes", &HostCalls::set_processes, nb::arg("processes"))
      .def("set_quick", &HostCalls::set_quick, nb::arg("collective"), nb::arg("root"), nb::arg("table"), nb::arg("apart"))
      .def("set_open", &HostCalls::set_open, nb::arg("open"), "Whether quick methods do anything.")
      .def("set_timeout", &HostCalls::set_timeout, nb::arg("timeout_ns"), "How long they wait without any progress.")
      .def("set_waiting", &HostCalls::set_waiting, nb::arg("fenced"), nb::arg("crowded"))
      .def("set_barrier", &HostCalls::set_barrier, nb::arg("program"))
      .def("set_pool", &HostCalls::set_pool, nb::arg("address"), nb::arg("nbytes"))
      .def("set_agreement", &HostCalls::set_agreement, nb::arg("program"))
      .def("run", &run_objects, nb::arg("table"), nb::arg("input"), nb::arg("output").none(), nb::arg("op"), nb::arg("divisor"), nb::arg("prescale"),
           nb::arg("timeout_ns"), "0: done; 1: a wait ran out; 2: not a plain contiguous buffer of a known type.")
      .def("run_addresses", &run_addresses, nb::arg("table"), nb::arg("input"), nb::arg("input_count"), nb::arg("output"), nb::arg("output_count"),
           nb::arg("in_place"), nb::arg("dtype"), nb::arg("elem_size"), nb::arg("op"), nb::arg("divisor"), nb::arg("prescale"), nb::arg("timeout_ns"),
           nb::arg("bounds") = std::vector<u64>(), nb::arg("places") = std::vector<u64>(), "With bounds (and places) where shards are not equal: as many as the program's shards say.")
      .def_prop_ro("last", &HostCalls::last, "The program that the last call ran.")
      .def("calls", &HostCalls::calls, nb::arg("program"), "How often it was called.");
}

}  // namespace blinkcoll
