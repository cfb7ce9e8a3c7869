// Tables of unequal shards, as Python hands them over.
#pragma once

#include <stdexcept>
#include <vector>

#include "blinkcoll/types.h"

namespace blinkcoll {

// Throws where `bounds` does not cut 0..count into `nshards` shards of a caller.
inline void check_bounds(const std::vector<u64>& bounds, u32 nshards, u64 count, bool callers_shards) {
  if (!callers_shards) throw std::invalid_argument("partition: only shards that are the caller's may be unequal");
  if (bounds.size() != size_t(nshards) + 1 || bounds.front() != 0 || bounds.back() != count)
    throw std::invalid_argument("partition: bounds must lead from 0 to count, one more than there are shards");
  for (u32 shard = 0; shard < nshards; shard++)
    if (bounds[shard] > bounds[shard + 1]) throw std::invalid_argument("partition: bounds must not fall");
}

}  // namespace blinkcoll
