// How much of memory lies in huge pages, as another process's copy of it will find it: the kernel takes such pages whole, and small
// ones one by one (50 GB/s and 14, one core).
#pragma once

#include <optional>

#include "blinkcoll/types.h"

namespace blinkcoll {

// Bytes of so many of this process's own, as far as it looks: of large memory, in its middle. Nothing where the kernel does not tell
// (PAGEMAP_SCAN came with Linux 6.7).
std::optional<u64> huge_bytes_of(u64 address, u64 nbytes);

}  // namespace blinkcoll
