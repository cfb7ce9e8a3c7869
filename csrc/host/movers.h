// Moving data on the host.
#pragma once

#include "blinkcoll/arithmetic.h"

namespace blinkcoll {

// Bit d of `streamed`: destination d is written past the caches; of `handed`: it is another rank's to read, so that results are made elsewhere
// and copied there. `fetched`: sources come from memory, where another rank has stored them past its caches.
struct Caching {
  u64 streamed = 0, handed = 0;
  bool fetched = false;
};

// All stores are ordered before a later release.
void copy_on_host(char* const* dsts, u32 ndsts, const char* src, u64 nbytes, const Caching& caching = {});

// Each element's sources are combined before any destination of it is written: a destination may be a source.
// `dtype` and `op` must be a pair that can_reduce() knows.
void reduce_on_host(u32 dtype, u32 op, char* const* dsts, u32 ndsts, char* const* srcs, u32 nsrcs, u64 count, const Scaling& scaling, const Caching& caching = {});

}  // namespace blinkcoll
