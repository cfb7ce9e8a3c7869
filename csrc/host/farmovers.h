// Movers where some operands lie in other processes: what is read is staged in the second cache, piece by piece.
#pragma once

#include "blinkcoll/dispatch.h"
#include "host/peers.h"

namespace blinkcoll {

// False where a rank's memory is out of reach.

bool copy_between(Peers& peers, const Remote* dsts, u32 ndsts, const Remote& src, u64 nbytes);

// `streamed`: destinations of this rank's are written past the caches.
bool reduce_between(Peers& peers, const Launch& launch, const Remote* dsts, u32 ndsts, const Remote* srcs, u32 nsrcs, u64 count, const Scaling& scaling, bool streamed);

}  // namespace blinkcoll
