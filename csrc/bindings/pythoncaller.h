// Calls from Python, which hold its interpreter's lock for a moment only.
#pragma once

#include <nanobind/nanobind.h>

#include "host/calls.h"

namespace blinkcoll {

// How a call ended.
enum Ending : int { kDone = 0, kOutOfTime = 1, kNotPlain = 2, kInterrupted = 3 };

class PythonCaller final : public Caller {
 public:
  PythonCaller() = default;
  PythonCaller(const PythonCaller&) = delete;
  PythonCaller& operator=(const PythonCaller&) = delete;
  ~PythonCaller() override {
    if (thread_) PyEval_RestoreThread(thread_);
  }

  void takes_long() override {
    if (!thread_) thread_ = PyEval_SaveThread();
  }
  // Whether Python has a signal to handle (an interrupt, as a rule); what its handler raised stays raised.
  bool interrupted() override {
    nanobind::gil_scoped_acquire acquire;
    return PyErr_Occurred() || PyErr_CheckSignals() != 0;
  }

 private:
  PyThreadState* thread_ = nullptr;  // while the lock is let go of
};

// One call; throws the exception that a signal's handler raised.
inline bool call(HostCalls& calls, u32 table, const UserBuffer& input, const UserBuffer* output, const CallKind& kind, u64 timeout_ns) {
  bool ran;
  {
    PythonCaller caller;
    ran = calls.run(table, input, output, kind, timeout_ns, caller);
  }
  if (PyErr_Occurred()) throw nanobind::python_error();
  return ran;
}

}  // namespace blinkcoll
