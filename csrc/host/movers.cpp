#include "movers.h"

#include "host/reduce_blocks.h"

BC_REDUCE_ENTRY(reduce_baseline)

#if defined(__x86_64__)
void reduce_avx2(unsigned, unsigned, char* const*, unsigned, char* const*, unsigned, unsigned long long, unsigned long long, unsigned long long, bool, const void*);
void reduce_avx512(unsigned, unsigned, char* const*, unsigned, char* const*, unsigned, unsigned long long, unsigned long long, unsigned long long, bool, const void*);
#endif

namespace blinkcoll {
namespace {

using Reduce = decltype(&reduce_baseline);

// The widest instructions that this CPU has, of those that there is code for.
Reduce widest() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) return reduce_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) return reduce_avx2;
#endif
  return reduce_baseline;
}

}  // namespace

void copy_on_host(char* const* dsts, u32 ndsts, const char* src, u64 nbytes, const Caching& caching) {
  constexpr u64 kPiece = 32 << 10;  // read once from memory, then from the first cache
  if (ndsts == 1) {
    if (dsts[0] != src) put(dsts[0], src, nbytes, caching.streamed & 1, caching.handed & 1, caching.fetched);
  } else {
    for (u64 at = 0; at < nbytes; at += kPiece) {
      const u64 n = nbytes - at < kPiece ? nbytes - at : kPiece;
      for (u32 d = 0; d < ndsts; d++) {
        if (dsts[d] != src) put(dsts[d] + at, src + at, n, has(caching.streamed, d), has(caching.handed, d), caching.fetched);
      }
    }
  }
  if (caching.streamed) order_streamed();
}

void reduce_on_host(u32 dtype, u32 op, char* const* dsts, u32 ndsts, char* const* srcs, u32 nsrcs, u64 count, const Scaling& scaling, const Caching& caching) {
  static const Reduce reduce = widest();
  reduce(dtype, op, dsts, ndsts, srcs, nsrcs, count, caching.streamed, caching.handed, caching.fetched, &scaling);
  if (caching.streamed) order_streamed();
}

}  // namespace blinkcoll
