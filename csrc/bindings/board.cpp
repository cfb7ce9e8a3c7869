#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "host/board.h"

namespace nb = nanobind;

namespace blinkcoll {

void bind_board(nb::module_& m) {
  m.def("call_word", &call_word, nb::arg("base"), nb::arg("dtype"), nb::arg("elem_size"), nb::arg("op"), nb::arg("divisor"), nb::arg("count"));
  m.def("announced_word", &announced_word, nb::arg("base"));
  m.def("same_call", &same_call, nb::arg("a"), nb::arg("b"));
  m.attr("BOARD_SIZES") = nb::make_tuple(sizeof(BoardHeader), sizeof(Board), sizeof(WaitNote), kBoardBytes, kWords, kBoardVersion);
  nb::class_<Boards>(m, "Boards", "This rank's view of what all ranks of a communicator show.")
      .def(nb::init<u64, u32, u32>(), nb::arg("base"), nb::arg("rank"), nb::arg("nranks"))
      .def("must_leave", &Boards::must_leave, "Whether the call under way can no longer succeed; verdict says why.")
      .def("anyone_differs", &Boards::anyone_differs, "Whether another rank's call of the same number is another one.")
      .def("word", &Boards::word, nb::arg("rank"), nb::arg("number"), "A rank's call word; 0: it has not come to it, or it is long ago.")
      .def("fail", [](Boards& boards, u32 kind, u64 call, const nb::bytes& why) { boards.fail(kind, call, why.c_str(), why.size()); },
           nb::arg("kind"), nb::arg("call"), nb::arg("why"))
      .def("mark", &Boards::mark, nb::arg("rank"), nb::arg("fate"))
      .def("stop", &Boards::stop)
      .def_prop_ro("alarmed", &Boards::alarmed)
      .def_prop_ro("number", &Boards::number, "The call that this rank began last.")
      .def_prop_ro("verdict", [](const Boards& boards) { return u32(boards.verdict()); })
      .def_prop_ro("culprit", &Boards::culprit)
      .def_prop_ro("where", &Boards::where, "The call that the verdict is about.");
}

}  // namespace blinkcoll
