// The extension module. Bindings convert types and never decide anything.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace blinkcoll {
void bind_nccl(nb::module_& m);
void bind_quick_methods(nb::module_& m);
void bind_packing(nb::module_& m);
void bind_partition(nb::module_& m);
void bind_runtime(nb::module_& m);
void bind_board(nb::module_& m);
void bind_calls(nb::module_& m);
void bind_simulator(nb::module_& m);
void bind_verifier(nb::module_& m);
}

NB_MODULE(_core, m) {
  // What a process still holds as it ends is no leak: the command line ends without looking for cycles once more.
  nb::set_leak_warnings(false);
  m.doc() = "blinkcoll's compiled core";
  blinkcoll::bind_nccl(m);
  blinkcoll::bind_packing(m);
  blinkcoll::bind_partition(m);
  blinkcoll::bind_runtime(m);
  blinkcoll::bind_board(m);
  blinkcoll::bind_calls(m);
  blinkcoll::bind_quick_methods(m);
  blinkcoll::bind_simulator(m);
  blinkcoll::bind_verifier(m);
}
