// Reductions in blocks that fit the first-level cache, in loops that compilers turn into vector code.
//
// Included by one source file for each instruction set. Those for more than the compiler's default rename the namespace
// (HOST_ISA), so that none of their inline functions can serve the rest of the program on a CPU that lacks the
// instructions. All give the same bits: elements are combined in the same order, and nothing is fused
// (-ffp-contract=off).
#pragma once

#include <type_traits>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "blinkcoll/arithmetic.h"
#include "host/put.h"

namespace blinkcoll {

// What a reduction is told, whatever its elements are. Bit d of `streamed`: destination d is written past the caches; of `copied`: it
// is written by copying what was made elsewhere. `fetched`: sources come from memory.
struct Task {
  char* const* dsts;
  u32 ndsts;
  char* const* srcs;
  u32 nsrcs;
  u64 count, streamed, copied;
  bool fetched;
  Scaling scaling;
};

inline bool has(u64 mask, u32 d) { return d < 64 && (mask >> d & 1); }

constexpr u64 kBlock = 1024;  // elements: sources, values and results of a block together stay in 32 KB
constexpr u64 kStreamedBytesAtATime = 1 << 10;  // of what is written past the caches or comes from memory (measured: 256 to 4,096)
// What is copied at a time: long enough for the C library to store whole lines without reading them first (`rep movsb`; from 2 to 8 KiB on).
constexpr u64 kSpanBytes = 16 << 10;

template <u32 kType>
using ValueOf = typename Element<kType>::Value;
template <u32 kType>
using StoredAs = typename Element<kType>::Stored;

// A destination may be a source, at the same place: no iteration reads what another one has written (`ivdep`).

template <u32 kType>
void take_block(ValueOf<kType>* values, const StoredAs<kType>* stored, u64 n) {
#if defined(__F16C__)
  if constexpr (kType == kFloat16) {  // exact, as float_of_half is
    u64 i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(values + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(stored + i))));
    for (; i < n; i++) values[i] = Element<kType>::take(stored[i]);
    return;
  }
#endif
#pragma GCC ivdep
  for (u64 i = 0; i < n; i++) values[i] = Element<kType>::take(stored[i]);
}

template <u32 kType>
void give_block(StoredAs<kType>* stored, const ValueOf<kType>* values, u64 n) {
#if defined(__F16C__)
  if constexpr (kType == kFloat16) {  // to nearest, ties to even, as half_of_float; payloads of NaNs may differ
    u64 i = 0;
    for (; i + 8 <= n; i += 8) _mm_storeu_si128(reinterpret_cast<__m128i*>(stored + i), _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++) stored[i] = Element<kType>::give(values[i]);
    return;
  }
#endif
#pragma GCC ivdep
  for (u64 i = 0; i < n; i++) stored[i] = Element<kType>::give(values[i]);
}

template <class Value>
void multiply_block(Value* values, double factor, u64 n) {
#pragma GCC ivdep
  for (u64 i = 0; i < n; i++) values[i] = multiplied(values[i], factor);
}

template <u32 kOp, class Value>
void combine_block(Value* into, const Value* values, u64 n) {
#pragma GCC ivdep
  for (u64 i = 0; i < n; i++) into[i] = Combine<kOp, Value>::apply(into[i], values[i]);
}

// Elements that are computed in as they are stored, two sources: no detour.
template <u32 kOp, class Value>
void combine_two(Value* into, const Value* a, const Value* b, u64 n) {
#pragma GCC ivdep
  for (u64 i = 0; i < n; i++) into[i] = Combine<kOp, Value>::apply(a[i], b[i]);
}

template <u32 kType, u32 kOp>
void reduce_block(StoredAs<kType>* result, const Task& t, u64 begin, u64 n) {
  using Stored = StoredAs<kType>;
  using Value = ValueOf<kType>;
  auto source = [&](u32 s) { return reinterpret_cast<const Stored*>(t.srcs[s]) + begin; };
  constexpr bool kPlain = std::is_same_v<Stored, Value>;
  if constexpr (kPlain) {
    if (t.nsrcs == 2 && t.scaling.prescaled == 0 && !t.scaling.postscaled) return combine_two<kOp>(result, source(0), source(1), n);
  }
  alignas(64) Value values[kBlock], next[kBlock];
  take_block<kType>(values, source(0), n);
  if (t.scaling.prescaled & 1) multiply_block(values, t.scaling.factor, n);
  for (u32 s = 1; s < t.nsrcs; s++) {
    take_block<kType>(next, source(s), n);
    if (t.scaling.prescaled >> s & 1) multiply_block(next, t.scaling.factor, n);
    combine_block<kOp>(values, next, n);
  }
  if (t.scaling.postscaled) {
#pragma GCC ivdep
    for (u64 i = 0; i < n; i++) values[i] = divided(values[i], t.scaling.divisor);
  }
  give_block<kType>(result, values, n);
}

// Elements before the first whole cache line, where all that follow lie in whole ones and there are any; else a span.
template <class Stored>
u64 lead_of(const char* at, u64 span) {
  const u64 nbytes = u64(-reinterpret_cast<i64>(at)) & 63;
  return nbytes % sizeof(Stored) || nbytes == 0 ? span : nbytes / sizeof(Stored);
}

// Results are made in the first destination that is neither written past the caches nor another rank's to read (nor a caller's that
// does not lie as its type asks), a span at a time, and copied from there, where they still are in the first cache; if there is
// none, they are made apart. All sources of a span are read before it is copied, and of a block before it is made, so that a
// destination may be a source.
template <u32 kType, u32 kOp>
void run(const Task& t) {
  using Stored = StoredAs<kType>;
  constexpr u64 kSpan = kSpanBytes / sizeof(Stored);
  // Stores past the caches are best spread among the loads: those of a block are on their way while the next one is made. And so is what is asked for.
  const bool ahead = t.streamed || t.fetched;
  const u64 span = ahead ? kStreamedBytesAtATime / sizeof(Stored) : kSpan;
  alignas(64) Stored apart[kSpan];
  u32 made_in = 0;
  while (made_in < t.ndsts && (has(t.streamed | t.copied, made_in) || reinterpret_cast<u64>(t.dsts[made_in]) % alignof(Stored))) made_in++;
  u64 n = lead_of<Stored>(made_in < t.ndsts ? t.dsts[made_in] : t.srcs[0], span);
  for (u64 begin = 0; begin < t.count; begin += n, n = span) {
    if (n > t.count - begin) n = t.count - begin;
    Stored* result = made_in < t.ndsts ? reinterpret_cast<Stored*>(t.dsts[made_in]) + begin : apart;
    for (u32 s = 0; s < (ahead ? t.nsrcs : 0); s++)
      for (u64 at = begin * sizeof(Stored); at < (begin + n) * sizeof(Stored); at += 64) prefetch_page_ahead(t.srcs[s] + at);
    for (u64 at = 0; at < n; at += kBlock) reduce_block<kType, kOp>(result + at, t, begin + at, n - at < kBlock ? n - at : kBlock);
    for (u32 d = 0; d < t.ndsts; d++)
      if (d != made_in) put(t.dsts[d] + begin * sizeof(Stored), result, n * sizeof(Stored), has(t.streamed, d), has(t.copied, d), false);
  }
}

template <u32 kType>
void run_op(u32 op, const Task& t) {
  constexpr bool kReal = kType == kFloat32 || kType == kFloat64 || kType == kFloat16 || kType == kBFloat16;
  if constexpr (!kReal) {
    switch (op) {
      case kBand: return run<kType, kBand>(t);
      case kBor: return run<kType, kBor>(t);
      case kBxor: return run<kType, kBxor>(t);
      default: break;
    }
  }
  switch (op) {
    case kProd: return run<kType, kProd>(t);
    case kMin: return run<kType, kMin>(t);
    case kMax: return run<kType, kMax>(t);
    default: return run<kType, kSum>(t);
  }
}

inline void reduce_blocks(u32 dtype, u32 op, const Task& t) {
  switch (dtype) {
    case kFloat32: return run_op<kFloat32>(op, t);
    case kFloat64: return run_op<kFloat64>(op, t);
    case kFloat16: return run_op<kFloat16>(op, t);
    case kBFloat16: return run_op<kBFloat16>(op, t);
    case kInt64: return run_op<kInt64>(op, t);
    case kInt32: return run_op<kInt32>(op, t);
    case kInt16: return run_op<kInt16>(op, t);
    case kInt8: return run_op<kInt8>(op, t);
    case kUInt8: return run_op<kUInt8>(op, t);
    default: return run_op<kBool>(op, t);
  }
}

}  // namespace blinkcoll

// The one symbol that an instruction set's source file gives the rest of the program; plain types, whatever the namespace.
#define BC_REDUCE_ENTRY(name)                                                                                                                 \
  void name(unsigned dtype, unsigned op, char* const* dsts, unsigned ndsts, char* const* srcs, unsigned nsrcs, unsigned long long count,          \
            unsigned long long streamed, unsigned long long copied, bool fetched, const void* scaling) {                                          \
    const blinkcoll::Task task{dsts, ndsts, srcs, nsrcs, count, streamed, copied, fetched, *static_cast<const blinkcoll::Scaling*>(scaling)};                \
    blinkcoll::reduce_blocks(dtype, op, task);                                                                                                \
  }
