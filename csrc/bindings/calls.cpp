#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "blinkcoll/dispatch.h"
#include "host/calls.h"
#include "host/callword.h"
#include "host/fences.h"
#include "host/peers.h"
#include "host/run.h"

namespace nb = nanobind;

namespace blinkcoll {
namespace {

// A contiguous buffer of one of the known element types, held for the length of a call.
class HeldBuffer {
 public:
  HeldBuffer() = default;
  HeldBuffer(const HeldBuffer&) = delete;
  HeldBuffer& operator=(const HeldBuffer&) = delete;
  ~HeldBuffer() {
    if (held_) PyBuffer_Release(&view_);
  }

  // False where the object has no plain, contiguous buffer of a known type (and, if asked, writable one).
  bool take(nb::handle object, bool writable) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0)) != 0) {
      PyErr_Clear();
      return false;
    }
    held_ = true;
    return dtype_of(view_.format, view_.itemsize, &dtype);
  }

  UserBuffer buffer() const { return {u64(view_.buf), view_.itemsize ? u64(view_.len / view_.itemsize) : 0}; }
  u32 elem_size() const { return u32(view_.itemsize); }
  u32 dtype = 0;

 private:
  static bool dtype_of(const char* format, Py_ssize_t size, u32* dtype) {
    if (!format || !format[0] || format[1]) return false;
    switch (format[0]) {
      case 'f': *dtype = kFloat32; return size == 4;
      case 'd': *dtype = kFloat64; return size == 8;
      case 'e': *dtype = kFloat16; return size == 2;
      case 'q': case 'l': *dtype = size == 8 ? kInt64 : kInt32; return size == 8 || size == 4;
      case 'i': *dtype = kInt32; return size == 4;
      case 'h': *dtype = kInt16; return size == 2;
      case 'b': *dtype = kInt8; return size == 1;
      case 'B': *dtype = kUInt8; return size == 1;
      case '?': *dtype = kBool; return size == 1;
      default: return false;
    }
  }

  Py_buffer view_;
  bool held_ = false;
};

// Whether Python has a signal to handle (an interrupt, as a rule); it stays raised.
bool signalled() {
  nb::gil_scoped_acquire acquire;
  return PyErr_Occurred() || PyErr_CheckSignals() != 0;
}

// A call without the lock of the interpreter; throws the exception that a signal raised.
bool call(HostCalls& calls, u32 table, const UserBuffer& input, const UserBuffer* output, const CallKind& kind, u64 timeout_ns) {
  bool ran;
  {
    nb::gil_scoped_release release;
    ran = calls.run(table, input, output, kind, timeout_ns, signalled);
  }
  if (PyErr_Occurred()) throw nb::python_error();
  return ran;
}

// An operation as callers number it: kPremultiplied is a sum, with factors.
CallKind kind_of(u32 dtype, u32 elem_size, u32 op, u32 divisor, double prescale) {
  const bool premultiplied = op == kPremultiplied;
  return {dtype, elem_size, premultiplied ? u32(kSum) : op, divisor, prescale, premultiplied};
}

// How a call on Python objects ended.
enum Ending : int { kDone = 0, kOutOfTime = 1, kNotPlain = 2, kInterrupted = 3 };

int run_objects(HostCalls& calls, u32 table, nb::handle input, nb::handle output, u32 op, u32 divisor, double prescale, u64 timeout_ns) {
  HeldBuffer from, to;
  const bool in_place = output.is_none();
  if (!from.take(input, in_place)) return kNotPlain;
  if (!in_place && (!to.take(output, true) || to.dtype != from.dtype)) return kNotPlain;
  const CallKind kind = kind_of(from.dtype, from.elem_size(), op, divisor, prescale);
  const UserBuffer a = from.buffer(), b = in_place ? a : to.buffer();
  return call(calls, table, a, in_place ? nullptr : &b, kind, timeout_ns) ? kDone : kOutOfTime;
}

// The operations that need no more than their name, by the objects that Python has for these names.
struct OpNames {
  OpNames() {
    const char* names[] = {"sum", "prod", "min", "max", "band", "bor", "bxor", "avg"};
    for (u32 i = 0; i < 8; i++) known[i] = PyUnicode_InternFromString(names[i]);
  }
  // The place of a name; 8 where it is another, or an object that is equal but not the same.
  u32 operator()(nb::handle name) const {
    u32 i = 0;
    while (i < 8 && known[i] != name.ptr()) i++;
    return i;
  }
  PyObject* known[8];
};

// How this thread's last quick call ended, if not well; and what a signal's handler raised.
thread_local int unsettled = kDone;
thread_local PyObject* raised = nullptr;

bool settled(HostCalls& calls, u32 table, const UserBuffer& input, const UserBuffer* output, const CallKind& kind, u64 timeout_ns) {
  int ended;
  try {
    ended = call(calls, table, input, output, kind, timeout_ns) ? kDone : kOutOfTime;
  } catch (const std::invalid_argument&) {  // of no use as it is: the long way says why
    return false;
  } catch (const nb::python_error& error) {
    Py_XDECREF(raised);
    raised = nb::borrow(error.value()).release().ptr();
    ended = kInterrupted;
  }
  unsettled = ended;
  return ended == kDone;
}

// A call that is plain in every way, by the key of its table: true where it has been made and has ended well. If not, the
// caller makes it the long way, unless take_unsettled() says that it has been made, and how it ended.
bool run_quickly(HostCalls& calls, u32 collective, nb::handle root, nb::handle array, nb::handle out, nb::handle op, u64 timeout_ns) {
  static const OpNames number;
  if (!PyLong_CheckExact(root.ptr())) return false;
  int overflow;
  const bool in_place = out.is_none();
  const int table = calls.quick(collective, PyLong_AsLongLongAndOverflow(root.ptr(), &overflow), in_place);
  const u32 kind = number(op);
  if (table < 0 || kind > kAverage) return false;
  HeldBuffer from, to;
  if (!from.take(array, in_place)) return false;
  if (!in_place && (!to.take(out, true) || to.dtype != from.dtype)) return false;
  const UserBuffer a = from.buffer(), b = in_place ? a : to.buffer();
  const CallKind what{from.dtype, from.elem_size(), kind == kAverage ? u32(kSum) : kind, kind == kAverage ? calls.nranks() : 1, 1};
  return settled(calls, u32(table), a, in_place ? nullptr : &b, what, timeout_ns);
}

// The same for what has no data.
bool run_barrier_quickly(HostCalls& calls, u32 collective, u64 timeout_ns) {
  const int table = calls.quick(collective, 0, true);
  return table >= 0 && settled(calls, u32(table), {0, 1}, nullptr, CallKind{}, timeout_ns);
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
  m.def("take_unsettled", [] { return std::exchange(unsettled, int(kDone)); }, "How this thread's last quick call ended, if not well; once.");
  m.def("take_raised", [] { return nb::steal(std::exchange(raised, nullptr)); }, "What a signal's handler raised in it.");
  m.def("read_memory", [](int process, u64 address, u64 nbytes) {
    std::string held(nbytes, '\0');
    Peers peers(&process);
    if (!peers.read(0, held.data(), pointer<const char>(address), nbytes)) throw std::system_error(peers.error(), std::generic_category(), "process " + std::to_string(process));
    return nb::bytes(held.data(), held.size());
  }, nb::arg("process"), nb::arg("address"), nb::arg("nbytes"), "Bytes of another process's memory.");
  nb::class_<HostCalls>(m, "HostCalls", "One rank's programs, set up once, and calls of them.")
      .def(nb::init<u32, u32>(), nb::arg("rank"), nb::arg("nranks"))
      .def("add_program", [](HostCalls& calls, const nb::bytes& record, const nb::bytes& code, const nb::bytes& connections, bool pooled) {
        if (record.size() != sizeof(Launch)) throw std::invalid_argument("a launch record of the wrong size");
        Launch launch;
        std::memcpy(&launch, record.c_str(), sizeof launch);
        return calls.add_program(launch, {code.c_str(), code.size()}, {connections.c_str(), connections.size()}, pooled);
      }, nb::arg("record"), nb::arg("code"), nb::arg("connections"), nb::arg("pooled"))
      .def("add_table", [](HostCalls& calls, int input, int output, const std::vector<std::tuple<u64, u32, bool>>& entries, u64 word) {
        std::vector<TableEntry> table;
        for (const auto& [most_bytes, program, premultiplies] : entries) table.push_back({most_bytes, program, premultiplies});
        return calls.add_table(View(input), View(output), std::move(table), word);
      }, nb::arg("input"), nb::arg("output"), nb::arg("entries"), nb::arg("word") = 0)
      .def("set_boards", &HostCalls::set_boards, nb::arg("boards"), nb::arg("peer"), nb::arg("compared"), nb::keep_alive<1, 2>())
      .def("announce", &HostCalls::announce, nb::arg("word"), nb::call_guard<nb::gil_scoped_release>())
      .def("cancel", &HostCalls::cancel, nb::call_guard<nb::gil_scoped_release>())
      .def("wake", &HostCalls::wake, "Wake whoever sleeps in a call.")
      .def("settle", &HostCalls::settle, nb::call_guard<nb::gil_scoped_release>(), "Return once no call is under way.")
      .def_prop_ro("busy", &HostCalls::busy)
      .def("set_processes", &HostCalls::set_processes, nb::arg("processes"))
      .def("set_quick", &HostCalls::set_quick, nb::arg("collective"), nb::arg("root"), nb::arg("table"), nb::arg("apart"))
      .def("set_open", &HostCalls::set_open, nb::arg("open"), "Whether run_quickly() does anything.")
      .def("run_quickly", &run_quickly, nb::arg("collective"), nb::arg("root"), nb::arg("array"), nb::arg("out").none(), nb::arg("op"), nb::arg("timeout_ns"),
           "Whether the call was plain, has been made, and has ended well.")
      .def("run_barrier_quickly", &run_barrier_quickly, nb::arg("collective"), nb::arg("timeout_ns"))
      .def("set_waiting", &HostCalls::set_waiting, nb::arg("fenced"), nb::arg("crowded"))
      .def("set_barrier", &HostCalls::set_barrier, nb::arg("program"))
      .def("run", &run_objects, nb::arg("table"), nb::arg("input"), nb::arg("output").none(), nb::arg("op"), nb::arg("divisor"), nb::arg("prescale"),
           nb::arg("timeout_ns"), "0: done; 1: a wait ran out; 2: not a plain contiguous buffer of a known type.")
      .def("run_addresses", &run_addresses, nb::arg("table"), nb::arg("input"), nb::arg("input_count"), nb::arg("output"), nb::arg("output_count"),
           nb::arg("in_place"), nb::arg("dtype"), nb::arg("elem_size"), nb::arg("op"), nb::arg("divisor"), nb::arg("prescale"), nb::arg("timeout_ns"),
           nb::arg("bounds") = std::vector<u64>(), nb::arg("places") = std::vector<u64>(), "With bounds (and places) where shards are not equal: as many as the program's shards say.")
      .def_prop_ro("last", &HostCalls::last, "The program that the last call ran.")
      .def("calls", &HostCalls::calls, nb::arg("program"), "How often it was called.");
}

}  // namespace blinkcoll
