// Buffers of Python objects.
#pragma once

#include <nanobind/nanobind.h>

#include "blinkcoll/types.h"
#include "host/calls.h"

namespace blinkcoll {

// A contiguous buffer of one of the known element types, held for the length of a call.
class HeldBuffer {
 public:
  HeldBuffer() = default;
  HeldBuffer(const HeldBuffer&) = delete;
  HeldBuffer& operator=(const HeldBuffer&) = delete;
  ~HeldBuffer() {
    if (held_) PyBuffer_Release(&view_);
  }

  // False where the object has no plain, contiguous buffer of a known type (and, if asked, writable one). Throws what is no
  // refusal, as a KeyboardInterrupt.
  bool take(PyObject* object, bool writable) {
    if (PyObject_GetBuffer(object, &view_, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0)) != 0) {
      if (!PyErr_ExceptionMatches(PyExc_Exception)) throw nanobind::python_error();
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

}  // namespace blinkcoll
