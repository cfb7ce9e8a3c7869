#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <stdexcept>
#include <system_error>

#include "blinkcoll/dispatch.h"
#include "host/calls.h"
#include "host/callword.h"
#include "host/peers.h"

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
enum Ending : int { kDone = 0, kOutOfTime = 1, kNotPlain = 2 };

int run_objects(HostCalls& calls, u32 table, nb::handle input, nb::handle output, u32 op, u32 divisor, double prescale, u64 timeout_ns) {
  HeldBuffer from, to;
  const bool in_place = output.is_none();
  if (!from.take(input, in_place)) return kNotPlain;
  if (!in_place && (!to.take(output, true) || to.dtype != from.dtype)) return kNotPlain;
  const CallKind kind = kind_of(from.dtype, from.elem_size(), op, divisor, prescale);
  const UserBuffer a = from.buffer(), b = in_place ? a : to.buffer();
  return call(calls, table, a, in_place ? nullptr : &b, kind, timeout_ns) ? kDone : kOutOfTime;
}

int run_addresses(HostCalls& calls, u32 table, u64 input, u64 input_count, u64 output, u64 output_count, bool in_place, u32 dtype, u32 elem_size,
                  u32 op, u32 divisor, double prescale, u64 timeout_ns) {
  const UserBuffer a{input, input_count}, b{output, output_count};
  return call(calls, table, a, in_place ? nullptr : &b, kind_of(dtype, elem_size, op, divisor, prescale), timeout_ns) ? kDone : kOutOfTime;
}

}  // namespace

void bind_calls(nb::module_& m) {
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
      .def("set_processes", &HostCalls::set_processes, nb::arg("processes"))
      .def("set_barrier", &HostCalls::set_barrier, nb::arg("program"))
      .def("run", &run_objects, nb::arg("table"), nb::arg("input"), nb::arg("output").none(), nb::arg("op"), nb::arg("divisor"), nb::arg("prescale"),
           nb::arg("timeout_ns"), "0: done; 1: a wait ran out; 2: not a plain contiguous buffer of a known type.")
      .def("run_addresses", &run_addresses, nb::arg("table"), nb::arg("input"), nb::arg("input_count"), nb::arg("output"), nb::arg("output_count"),
           nb::arg("in_place"), nb::arg("dtype"), nb::arg("elem_size"), nb::arg("op"), nb::arg("divisor"), nb::arg("prescale"), nb::arg("timeout_ns"))
      .def_prop_ro("last", &HostCalls::last, "The program that the last call ran.")
      .def("calls", &HostCalls::calls, nb::arg("program"), "How often it was called.");
}

}  // namespace blinkcoll
