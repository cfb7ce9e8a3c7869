// Whether memory lies in huge pages, as another process's copy of it will find it: the kernel takes such pages whole, and small
// ones one by one (50 GB/s and 14, one core).
#pragma once

#include "blinkcoll/types.h"

namespace blinkcoll {

// Of this process's own pages: whether at least half are huge. True where the kernel cannot tell (PAGEMAP_SCAN, Linux 6.7).
bool mostly_huge(u64 address, u64 nbytes);

}  // namespace blinkcoll
