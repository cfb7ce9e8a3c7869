#include "movers.h"

namespace blinkcoll {
namespace {

// What a reduction is told, whatever its elements are.
struct Task {
  char* const* dsts;
  u32 ndsts;
  char* const* srcs;
  u32 nsrcs;
  u64 count;
  Scaling scaling;
};

template <u32 kType, u32 kOp>
void run(const Task& t) {
  using Stored = typename Element<kType>::Stored;
  for (u64 i = 0; i < t.count; i++) {
    const Stored result = combined<kType, kOp>([&](u32 s) { return reinterpret_cast<const Stored*>(t.srcs[s])[i]; }, t.nsrcs, t.scaling);
    for (u32 d = 0; d < t.ndsts; d++) reinterpret_cast<Stored*>(t.dsts[d])[i] = result;
  }
}

template <u32 kType>
void run_real(u32 op, const Task& t) {
  switch (op) {
    case kProd: return run<kType, kProd>(t);
    case kMin: return run<kType, kMin>(t);
    case kMax: return run<kType, kMax>(t);
    default: return run<kType, kSum>(t);
  }
}

template <u32 kType>
void run_whole(u32 op, const Task& t) {
  switch (op) {
    case kBand: return run<kType, kBand>(t);
    case kBor: return run<kType, kBor>(t);
    case kBxor: return run<kType, kBxor>(t);
    case kProd: return run<kType, kProd>(t);
    case kMin: return run<kType, kMin>(t);
    case kMax: return run<kType, kMax>(t);
    default: return run<kType, kSum>(t);
  }
}

}  // namespace

void reduce_on_host(u32 dtype, u32 op, char* const* dsts, u32 ndsts, char* const* srcs, u32 nsrcs, u64 count, const Scaling& scaling) {
  const Task task{dsts, ndsts, srcs, nsrcs, count, scaling};
  switch (dtype) {
    case kFloat32: return run_real<kFloat32>(op, task);
    case kFloat64: return run_real<kFloat64>(op, task);
    case kFloat16: return run_real<kFloat16>(op, task);
    case kBFloat16: return run_real<kBFloat16>(op, task);
    case kInt64: return run_whole<kInt64>(op, task);
    case kInt32: return run_whole<kInt32>(op, task);
    case kInt16: return run_whole<kInt16>(op, task);
    case kInt8: return run_whole<kInt8>(op, task);
    case kUInt8: return run_whole<kUInt8>(op, task);
    default: return run_whole<kBool>(op, task);
  }
}

}  // namespace blinkcoll
