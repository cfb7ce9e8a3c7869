// Elements and what is done with them: one source for hosts and GPUs, so that results agree bit for bit.
//
// A value is taken from memory into the type it is computed in (float for float16 and bfloat16, which round once, when a
// step stores its result), combined in the order of the sources, scaled, and stored. Integers wrap. The least and the
// greatest of numbers one of which is no number is no number. Booleans add as `or` and multiply as `and`.
#pragma once

#include "launch.h"

namespace blinkcoll {

// What a step does beside combining: bit s of `prescaled` means that source s is multiplied by `factor`.
struct Scaling {
  u64 prescaled;
  bool postscaled;
  double factor;
  u32 divisor;
};

BC_HD float float_of_bits(u32 bits) {
  union {
    u32 from;
    float to;
  } both{bits};
  return both.to;
}

BC_HD u32 bits_of_float(float value) {
  union {
    float from;
    u32 to;
  } both{value};
  return both.to;
}

// IEEE 754 binary16 to binary32: exact.
BC_HD float float_of_half(u16 half) {
  const u32 sign = u32(half & 0x8000u) << 16, exponent = half >> 10 & 31u, fraction = half & 0x3ffu;
  if (exponent == 31) return float_of_bits(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0) return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
  const float magnitude = float(fraction) * float_of_bits(0x33800000u);  // units of 2^-24
  return float_of_bits(sign | bits_of_float(magnitude));
}

// The high part of `value` without its last `shift` bits, rounded to nearest, ties to even.
BC_HD u32 rounded_shift(u32 value, u32 shift) {
  const u32 kept = value >> shift, dropped = value & ((1u << shift) - 1), half = 1u << (shift - 1);
  return kept + (dropped > half || (dropped == half && (kept & 1u)));
}

BC_HD u16 half_of_float(float value) {
  const u32 bits = bits_of_float(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return u16(sign | 0x7e00u);            // no number
  if (magnitude >= 0x477ff000u) return u16(sign | 0x7c00u);           // 65520 and more: infinite
  if (magnitude >= 0x38800000u) return u16(sign | rounded_shift(magnitude - 0x38000000u, 13));
  if (magnitude <= 0x33000000u) return u16(sign);                     // half of the least, 2^-25, and less
  const u32 significand = (magnitude & 0x7fffffu) | 0x800000u;        // subnormal: units of 2^-24
  return u16(sign | rounded_shift(significand, 126 - (magnitude >> 23)));
}

BC_HD float float_of_bfloat(u16 value) { return float_of_bits(u32(value) << 16); }

BC_HD u16 bfloat_of_float(float value) {
  const u32 bits = bits_of_float(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return u16(bits >> 16 | 0x40u);
  return u16(rounded_shift(bits, 16));
}

// -- how an element is stored, and what it is computed in -----------------------------------------------------------

template <u32 kType>
struct Element;

template <class T>
struct PlainElement {
  using Stored = T;
  using Value = T;
  BC_HD static Value take(Stored stored) { return stored; }
  BC_HD static Stored give(Value value) { return value; }
};

template <>
struct Element<kFloat32> : PlainElement<float> {};
template <>
struct Element<kFloat64> : PlainElement<double> {};
template <>
struct Element<kInt64> : PlainElement<i64> {};
template <>
struct Element<kInt32> : PlainElement<int> {};
template <>
struct Element<kInt16> : PlainElement<short> {};
template <>
struct Element<kInt8> : PlainElement<signed char> {};
template <>
struct Element<kUInt8> : PlainElement<u8> {};

template <>
struct Element<kFloat16> {
  using Stored = u16;
  using Value = float;
  BC_HD static Value take(Stored stored) { return float_of_half(stored); }
  BC_HD static Stored give(Value value) { return half_of_float(value); }
};

template <>
struct Element<kBFloat16> {
  using Stored = u16;
  using Value = float;
  BC_HD static Value take(Stored stored) { return float_of_bfloat(stored); }
  BC_HD static Stored give(Value value) { return bfloat_of_float(value); }
};

template <>
struct Element<kBool> {
  using Stored = u8;
  using Value = bool;
  BC_HD static Value take(Stored stored) { return stored != 0; }
  BC_HD static Stored give(Value value) { return value ? 1 : 0; }
};

// -- operations, by kind of value -------------------------------------------------------------------------------------

// Which operations there are; anything else is refused before a launch.
template <u32 kOp, class T>
struct Combine {  // integers: wrap around, without C++'s undefined signed overflow
  BC_HD static T apply(T a, T b) {
    switch (kOp) {
      case kSum: return T(u64(a) + u64(b));
      case kProd: return T(u64(a) * u64(b));
      case kMin: return b < a ? b : a;
      case kMax: return b > a ? b : a;
      case kBand: return T(a & b);
      case kBor: return T(a | b);
      default: return T(a ^ b);
    }
  }
};

template <u32 kOp, class T>
struct CombineReal {
  BC_HD static T apply(T a, T b) {
    switch (kOp) {
      case kProd: return a * b;
      case kMin: return b < a || b != b ? b : a;
      case kMax: return b > a || b != b ? b : a;
      default: return a + b;
    }
  }
};
template <u32 kOp>
struct Combine<kOp, float> : CombineReal<kOp, float> {};
template <u32 kOp>
struct Combine<kOp, double> : CombineReal<kOp, double> {};

template <u32 kOp>
struct Combine<kOp, bool> {
  BC_HD static bool apply(bool a, bool b) {
    switch (kOp) {
      case kProd: case kMin: case kBand: return a && b;
      case kBxor: return a != b;
      default: return a || b;
    }
  }
};

// Only real numbers are multiplied by a factor; integers and reals are divided (integers towards zero).
template <class T>
BC_HD T multiplied(T value, double) { return value; }
template <>
BC_HD float multiplied(float value, double factor) { return value * float(factor); }
template <>
BC_HD double multiplied(double value, double factor) { return value * factor; }

template <class T>
BC_HD T divided(T value, u32 divisor) { return T(i64(value) / i64(divisor)); }
template <>
BC_HD float divided(float value, u32 divisor) { return value / float(divisor); }
template <>
BC_HD double divided(double value, u32 divisor) { return value / double(divisor); }

// What source s of a step brings in, and what the step stores.
template <u32 kType>
BC_HD typename Element<kType>::Value taken(typename Element<kType>::Stored stored, u32 s, const Scaling& scaling) {
  const auto value = Element<kType>::take(stored);
  return scaling.prescaled >> s & 1 ? multiplied(value, scaling.factor) : value;
}

template <u32 kType>
BC_HD typename Element<kType>::Stored given(typename Element<kType>::Value value, const Scaling& scaling) {
  return Element<kType>::give(scaling.postscaled ? divided(value, scaling.divisor) : value);
}

// Element i of a step: its sources in their order, scaled; see the head of this file.
template <u32 kType, u32 kOp, class Take>
BC_HD typename Element<kType>::Stored combined(const Take& stored, u32 nsrcs, const Scaling& scaling) {
  using Value = typename Element<kType>::Value;
  Value result = taken<kType>(stored(0), 0, scaling);
  for (u32 s = 1; s < nsrcs; s++) result = Combine<kOp, Value>::apply(result, taken<kType>(stored(s), s, scaling));
  return given<kType>(result, scaling);
}

// Whether a switch can reduce this (PTX ISA, multimem.ld_reduce of sm_90 and newer): sums of floats and of 32- and 64-bit
// integers, least and greatest of these integers and of 16-bit floats, bitwise operations of any integers.
BC_HD constexpr bool can_reduce_in_switch(u32 dtype, u32 op) {
  const bool wide = dtype == kInt64 || dtype == kInt32, half = dtype == kFloat16 || dtype == kBFloat16;
  const bool narrow = dtype == kInt16 || dtype == kInt8 || dtype == kUInt8;
  switch (op) {
    case kSum: return wide || half || dtype == kFloat32 || dtype == kFloat64;
    case kMin: case kMax: return wide || half;
    case kBand: case kBor: case kBxor: return wide || narrow;
    default: return false;
  }
}

// Whether the executors can do this; the launcher asks too.
BC_HD bool can_reduce(u32 dtype, u32 op, bool premultiplied, bool divided) {
  const bool real = dtype == kFloat32 || dtype == kFloat64 || dtype == kFloat16 || dtype == kBFloat16;
  if (dtype == kOpaque || dtype > kBool || op > kBxor) return false;
  if (real && op > kMax) return false;
  if (premultiplied && (!real || op != kSum)) return false;
  return !(divided && (dtype == kBool || op != kSum));
}

}  // namespace blinkcoll
