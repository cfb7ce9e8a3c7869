// Reductions on the host: plain loops, one for each dtype and operation.
#pragma once

#include "blinkcoll/arithmetic.h"

namespace blinkcoll {

// Each element's sources are combined before any destination of it is written: a destination may be a source.
// `dtype` and `op` must be a pair that can_reduce() knows.
void reduce_on_host(u32 dtype, u32 op, char* const* dsts, u32 ndsts, char* const* srcs, u32 nsrcs, u64 count, const Scaling& scaling);

}  // namespace blinkcoll
