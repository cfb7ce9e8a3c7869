// Methods of a communicator whose plain calls never run any Python: a descriptor around the method written in Python, which
// makes the call itself where a table is known for it and all arguments are plain, and otherwise calls that method.
//
// A frame of Python's and a binding's checks cost as much as a small collective between two ranks, which is why this is
// written against the interpreter's own interface.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#if defined(Py_LIMITED_API) && Py_LIMITED_API >= 0x030c0000
#define BC_OFFSET_TYPE Py_T_PYSSIZET
#define BC_OBJECT_TYPE Py_T_OBJECT_EX
#define BC_READ_ONLY Py_READONLY
#else
#include <structmember.h>
#define BC_OFFSET_TYPE T_PYSSIZET
#define BC_OBJECT_TYPE T_OBJECT_EX
#define BC_READ_ONLY READONLY
#endif

#include <array>
#include <cstddef>
#include <stdexcept>
#include <utility>

#include "bindings/heldbuffer.h"
#include "bindings/pythoncaller.h"

namespace nb = nanobind;

namespace blinkcoll {
namespace {

// A quick call of this thread's that has not ended well, for the method in Python to say so.
struct Unsettled {
  const HostCalls* calls = nullptr;  // null: there is none
  int ended = kDone;
  PyObject* raised = nullptr;  // what a signal's handler did, or what went wrong
};
thread_local Unsettled unsettled;

enum Parameter : u32 { kArray, kRoot, kOp, kOut, kParameters };

struct QuickMethod {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  PyObject* function;  // the method in Python
  u32 collective;      // the key of its tables
  u32 nparameters;
  Parameter parameters[kParameters];  // in the method's order, behind self
};

using Arguments = std::array<PyObject*, kParameters>;  // null where nothing was given

// Names that are looked for, as the interpreter's own objects: those in a program's text are the same ones.
struct Names {
  Names() {
    const char* of[] = {"array", "root", "op", "out"};
    for (u32 i = 0; i < kParameters; i++) parameters[i] = PyUnicode_InternFromString(of[i]);
    const char* operations[] = {"sum", "prod", "min", "max", "band", "bor", "bxor", "avg"};  // those that need no more than their name
    for (u32 i = 0; i <= kAverage; i++) ops[i] = PyUnicode_InternFromString(operations[i]);
    calls = PyUnicode_InternFromString("_calls");
  }
  static constexpr u32 kAverage = 7;
  PyObject *parameters[kParameters], *ops[kAverage + 1], *calls;
};

const Names& names() {
  static const Names names;
  return names;
}

// False where the method has no such arguments, or other ones are given, too.
bool take(const QuickMethod& method, PyObject* const* given, u32 ngiven, PyObject* keywords, Arguments& arguments) {
  if (ngiven > method.nparameters) return false;
  for (u32 i = 0; i < ngiven; i++) arguments[method.parameters[i]] = given[i];
  const Py_ssize_t nkeywords = keywords ? PyTuple_Size(keywords) : 0;
  for (Py_ssize_t k = 0; k < nkeywords; k++) {
    u32 i = 0;
    while (i < method.nparameters && names().parameters[method.parameters[i]] != PyTuple_GetItem(keywords, k)) i++;
    if (i == method.nparameters || arguments[method.parameters[i]]) return false;
    arguments[method.parameters[i]] = given[ngiven + u32(k)];
  }
  for (u32 i = 0; i < method.nparameters; i++) {
    const Parameter needed = method.parameters[i];
    if ((needed == kArray || needed == kRoot) && !arguments[needed]) return false;
  }
  return true;
}

// An operation's number; kAverage + 1 where it is another, or an object that is equal but not the same.
u32 op_of(PyObject* name) {
  if (!name) return 0;
  u32 i = 0;
  while (i <= Names::kAverage && names().ops[i] != name) i++;
  return i;
}

bool settled(HostCalls& calls, u32 table, const UserBuffer& input, const UserBuffer* output, const CallKind& kind) {
  Unsettled ended{&calls};
  try {
    if (call(calls, table, input, output, kind, calls.timeout_ns())) return true;
    ended.ended = kOutOfTime;
  } catch (const std::invalid_argument&) {  // of no use as it is: the long way says why
    return false;
  } catch (const nb::python_error& error) {
    ended.ended = kInterrupted;
    ended.raised = nb::borrow(error.value()).release().ptr();
  } catch (const std::exception& error) {
    ended.ended = kInterrupted;
    ended.raised = nb::handle(PyExc_RuntimeError)(error.what()).release().ptr();
  }
  Py_XDECREF(unsettled.raised);
  unsettled = ended;
  return false;
}

int take_unsettled(const HostCalls* calls) {
  if (!calls || unsettled.calls != calls) return kDone;
  unsettled.calls = nullptr;
  return unsettled.ended;
}

nb::object take_raised() { return nb::steal(std::exchange(unsettled.raised, nullptr)); }

// The method in Python raised before it took what its quick call left (another signal's handler may, as it is entered): the
// communicator has failed nevertheless.
void leave_unsettled(const HostCalls* calls, PyObject* communicator) {
  if (take_unsettled(calls) == kDone) return;
  take_raised();
  nb::python_error error;
  nb::handle(communicator).attr("_broke_off")(error.value());
  error.restore();
}

// True where the call has been made and has ended well; `result` is then what it returns. If not, the method in Python makes
// it, unless take_unsettled() tells it that it has been made, and how it ended.
bool run(HostCalls& calls, u32 collective, const Arguments& arguments, PyObject** result) {
  i64 root = 0;
  if (arguments[kRoot]) {
    int overflow;
    if (!PyLong_CheckExact(arguments[kRoot])) return false;
    root = PyLong_AsLongLongAndOverflow(arguments[kRoot], &overflow);
  }
  const u32 op = op_of(arguments[kOp]);
  if (op > Names::kAverage) return false;
  PyObject *array = arguments[kArray], *out = arguments[kOut] == Py_None ? nullptr : arguments[kOut];
  const int table = calls.quick(collective, root, !out);
  if (table < 0) return false;
  if (!array) {  // a barrier
    *result = Py_None;
    return settled(calls, u32(table), {0, 1}, nullptr, {kUInt8, 1});  // as the method in Python makes it
  }
  if (calls.output_of(u32(table)) == View::kNone) out = nullptr;  // only the root has one
  if (calls.input_of(u32(table)) == View::kNone && out) array = std::exchange(out, nullptr);
  HeldBuffer from, to;
  if (!from.take(array, !out)) return false;
  if (out && (!to.take(out, true) || to.dtype != from.dtype)) return false;
  const UserBuffer a = from.buffer(), b = out ? to.buffer() : a;
  const bool average = op == Names::kAverage;
  const CallKind kind{from.dtype, from.elem_size(), average ? u32(kSum) : op, average ? calls.nranks() : 1, 1};
  *result = out ? out : array;
  return settled(calls, u32(table), a, out ? &b : nullptr, kind);
}

// Null where it could not be made, or did not end well; `made_by` is then who made it, if anybody.
PyObject* try_quickly(const QuickMethod& method, PyObject* const* args, u32 ngiven, PyObject* keywords, const HostCalls** made_by) {
  Arguments arguments{};
  if (!take(method, args + 1, ngiven, keywords, arguments)) return nullptr;
  nb::object held = nb::steal(PyObject_GetAttr(args[0], names().calls));  // for the length of the call, whoever closes the communicator
  HostCalls* calls = nullptr;
  if (!held.is_valid() || !nb::try_cast<HostCalls*>(held, calls) || !calls) {
    PyErr_Clear();
    return nullptr;
  }
  PyObject* result = nullptr;
  if (!run(*calls, method.collective, arguments, &result)) {
    if (unsettled.calls == calls) *made_by = calls;
    return nullptr;
  }
  Py_INCREF(result);
  return result;
}

PyObject* call_method(PyObject* callable, PyObject* const* args, size_t nargsf, PyObject* keywords) {
  const QuickMethod& method = *reinterpret_cast<QuickMethod*>(callable);
  const Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
  try {
    const HostCalls* made_by = nullptr;
    if (nargs > 0) {
      if (PyObject* result = try_quickly(method, args, u32(nargs - 1), keywords, &made_by)) return result;
    }
    PyObject* result = PyObject_Vectorcall(method.function, args, nargsf, keywords);
    if (made_by && !result) leave_unsettled(made_by, args[0]);
    return result;
  } catch (nb::python_error& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

// -- the type ---------------------------------------------------------------------------------------------------------------

PyObject* bind_to(PyObject* method, PyObject* object, PyObject*) {
  if (!object) return nb::borrow(method).release().ptr();
  static PyObject* kind = nullptr;
  if (!kind) {
    const nb::object types = nb::steal(PyImport_ImportModule("types"));
    if (types.is_valid()) kind = PyObject_GetAttrString(types.ptr(), "MethodType");
  }
  return kind ? PyObject_CallFunctionObjArgs(kind, method, object, nullptr) : nullptr;
}

PyObject* of_function(PyObject* method, void* name) { return PyObject_GetAttrString(reinterpret_cast<QuickMethod*>(method)->function, static_cast<const char*>(name)); }

int traverse(PyObject* object, visitproc visit, void* arg) {
  Py_VISIT(reinterpret_cast<QuickMethod*>(object)->function);
  Py_VISIT(Py_TYPE(object));
  return 0;
}

int clear(PyObject* object) {
  Py_CLEAR(reinterpret_cast<QuickMethod*>(object)->function);
  return 0;
}

void destroy(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  clear(object);
  PyObject_GC_Del(object);
  Py_DECREF(type);
}

#define BC_OF_FUNCTION(name) {name, of_function, nullptr, nullptr, const_cast<char*>(name)}
PyGetSetDef attributes[] = {BC_OF_FUNCTION("__doc__"), BC_OF_FUNCTION("__name__"), BC_OF_FUNCTION("__qualname__"), BC_OF_FUNCTION("__annotations__"),
                            {nullptr, nullptr, nullptr, nullptr, nullptr}};
#undef BC_OF_FUNCTION

PyMemberDef members[] = {{"__vectorcalloffset__", BC_OFFSET_TYPE, offsetof(QuickMethod, vectorcall), BC_READ_ONLY, nullptr},
                         {"__wrapped__", BC_OBJECT_TYPE, offsetof(QuickMethod, function), BC_READ_ONLY, nullptr},
                         {nullptr, 0, 0, 0, nullptr}};

template <class F>
void* slot(F* function) {
  return reinterpret_cast<void*>(function);
}

PyObject* make_type() {
  PyType_Slot slots[] = {{Py_tp_call, slot(PyVectorcall_Call)}, {Py_tp_descr_get, slot(bind_to)}, {Py_tp_traverse, slot(traverse)}, {Py_tp_clear, slot(clear)},
                         {Py_tp_dealloc, slot(destroy)}, {Py_tp_getset, attributes}, {Py_tp_members, members}, {0, nullptr}};
  PyType_Spec spec{"blinkcoll._core.QuickMethod", int(sizeof(QuickMethod)), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR, slots};
  return PyType_FromSpec(&spec);
}

nb::object make(u32 collective, const std::vector<std::string>& parameters, nb::object function) {
  static PyObject* const type = make_type();
  if (!type) throw nb::python_error();
  if (parameters.size() > kParameters) throw std::invalid_argument("a quick method has other parameters");
  auto* method = PyObject_GC_New(QuickMethod, reinterpret_cast<PyTypeObject*>(type));
  if (!method) throw nb::python_error();
  method->vectorcall = call_method;
  method->collective = collective;
  method->nparameters = 0;
  method->function = function.release().ptr();
  nb::object made = nb::steal(reinterpret_cast<PyObject*>(method));
  for (const std::string& name : parameters) {
    u32 i = 0;
    while (i < kParameters && PyUnicode_CompareWithASCIIString(names().parameters[i], name.c_str()) != 0) i++;
    if (i == kParameters) throw std::invalid_argument("a quick method has no parameter " + name);
    method->parameters[method->nparameters++] = Parameter(i);
  }
  PyObject_GC_Track(method);
  return made;
}

}  // namespace

void bind_quick_methods(nb::module_& m) {
  m.def("quick_method", &make, nb::arg("collective"), nb::arg("parameters"), nb::arg("function"),
        "A method that makes plain calls of the collective with that key itself, on the HostCalls `_calls` of its object.");
  m.def("take_unsettled", &take_unsettled, nb::arg("calls").none(), "How this thread's last quick call there ended, if not well; once.");
  m.def("take_raised", &take_raised, "What a signal's handler raised in it.");
}

}  // namespace blinkcoll
