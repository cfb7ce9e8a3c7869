#include "pages.h"

#if defined(__linux__)
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#endif

namespace blinkcoll {

#if defined(__linux__)
namespace {

// Of <linux/fs.h>, which may be older than the kernel.
struct PageRegion {
  u64 start, end, categories;
};
struct ScanPages {
  u64 size, flags, start, end, walk_end, regions, nregions, most_pages, inverted, all_of, any_of, returned;
};
constexpr u64 kIsHuge = u64(1) << 6;
const unsigned long kScan = _IOWR('f', 16, ScanPages);

// What is looked at of larger memory, in its middle: all that 2,048 small pages cost is 6 us.
constexpr u64 kLookedAt = 8 << 20, kPage = 4096;

// Of this process, which keeps it; a child of fork opens its own. No lock, which another thread might hold when it is forked.
int pagemap() {
  static std::atomic<u64> held{0};  // the process it is of, and the descriptor
  const u64 mine = u64(getpid()) << 32;
  u64 seen = held.load(std::memory_order_acquire);
  if (seen >> 32 == mine >> 32) return int(u32(seen));
  const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (held.compare_exchange_strong(seen, mine | u32(fd), std::memory_order_acq_rel)) return fd;
  if (fd >= 0) close(fd);  // another thread was first
  return int(u32(seen));
}

}  // namespace

std::optional<u64> huge_bytes_of(u64 address, u64 nbytes) {
  const u64 looked_at = nbytes < kLookedAt ? nbytes : kLookedAt, begin = address + (nbytes - looked_at) / 2;
  PageRegion regions[32];
  ScanPages scan{sizeof scan, 0, begin / kPage * kPage, (begin + looked_at + kPage - 1) / kPage * kPage, 0, u64(regions), 32, 0, 0, kIsHuge, 0, kIsHuge};
  const int found = ioctl(pagemap(), kScan, &scan);
  if (found < 0) return std::nullopt;
  u64 huge = 0;
  for (int i = 0; i < found; i++) huge += regions[i].end - regions[i].start;
  return u64(double(std::min(huge, looked_at)) / double(looked_at) * double(nbytes));
}
#else
std::optional<u64> huge_bytes_of(u64, u64) { return std::nullopt; }
#endif

}  // namespace blinkcoll
