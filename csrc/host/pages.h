// Whether memory lies in huge pages, as another process's copy of it will find it: the kernel takes such pages whole, and small
// ones one by one (50 GB/s and 14, one core).
#pragma once

#include "blinkcoll/types.h"

namespace blinkcoll {

// kMixed: at least half are huge; kHuge: two thirds. kUnknown: the kernel cannot tell (PAGEMAP_SCAN came with Linux 6.7).
enum class Pages : u32 { kSmall = 0, kMixed = 1, kUnknown = 2, kHuge = 3 };

// Of this process's own memory.
Pages pages_of(u64 address, u64 nbytes);

}  // namespace blinkcoll
