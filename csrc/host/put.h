// Storing a block: through the caches, or past them where what is stored is too large to stay there.
//
// An ordinary store first reads the line it writes to. Past the caches it does not, which saves a third of a large copy's
// traffic; such stores are weakly ordered, so order_streamed() has to come before a counter says that they are done.
#pragma once

#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "blinkcoll/types.h"

namespace blinkcoll {

// What was stored past the caches comes from memory, in small pages at whose ends a CPU's own prefetching stops: so lines are asked for a page
// ahead, into the second cache. (Measured on Zen 4, 128 KiB that another core has just stored: 20 to 22 GB/s so, 14 into the first cache, 14 to 17 by the
// C library's copy.)
inline void prefetch_page_ahead(const char* line) { __builtin_prefetch(line + 4096, 0, 2); }

// Whole lines of the destination, which source lines are asked for ahead for.
template <bool kStreamed>
void put_lines(char* dst, const char* src, u64 nbytes) {
#if defined(__SSE2__)
  const u64 head = u64(-reinterpret_cast<i64>(dst)) & 63;
  if (nbytes >= head + 64) {
    std::memcpy(dst, src, head);
    dst += head, src += head, nbytes -= head;
    for (; nbytes >= 64; dst += 64, src += 64, nbytes -= 64) {
      prefetch_page_ahead(src);
      const __m128i* from = reinterpret_cast<const __m128i*>(src);
      __m128i* to = reinterpret_cast<__m128i*>(dst);
      const __m128i a = _mm_loadu_si128(from), b = _mm_loadu_si128(from + 1), c = _mm_loadu_si128(from + 2), d = _mm_loadu_si128(from + 3);
      if constexpr (kStreamed) {
        _mm_stream_si128(to, a), _mm_stream_si128(to + 1, b), _mm_stream_si128(to + 2, c), _mm_stream_si128(to + 3, d);
      } else {
        _mm_store_si128(to, a), _mm_store_si128(to + 1, b), _mm_store_si128(to + 2, c), _mm_store_si128(to + 3, d);
      }
    }
  }
#endif
  std::memcpy(dst, src, nbytes);
}

// `rep movsb`, by which the C library copies what is long, reads lines before it overwrites them after all where the destination begins
// less than a line behind the source, in their pages: slow where the lines are in another core's cache (measured on Zen 5:
// all-gathers of 2 MiB between cores that share none 62 us, and 156).
inline bool in_the_way(const char* dst, const char* src) {
  const u64 ahead = (reinterpret_cast<u64>(dst) - reinterpret_cast<u64>(src)) % 4096;
  return ahead > 0 && ahead < 64;
}

// By way of the first cache, from a place half a page off.
inline void put_around(char* dst, const char* src, u64 nbytes) {
  constexpr u64 kPiece = 16 << 10, kPage = 4096;
  alignas(4096) char around[kPiece + kPage];
  char* const there = around + (reinterpret_cast<u64>(dst) + kPage / 2) % kPage;
  for (u64 at = 0; at < nbytes; at += kPiece) {
    const u64 n = nbytes - at < kPiece ? nbytes - at : kPiece;
    std::memcpy(there, src + at, n);
    std::memcpy(dst + at, there, n);
  }
}

// `handed`: it is another rank's to read, and the last one to have it was that rank. `fetched`: the source comes from memory.
inline void put(char* dst, const void* src, u64 nbytes, bool streamed, bool handed, bool fetched) {
  constexpr u64 kLong = 8 << 10;
  const char* from = static_cast<const char*>(src);
  if (streamed) {
    put_lines<true>(dst, from, nbytes);
  } else if (fetched) {
    put_lines<false>(dst, from, nbytes);
  } else if (handed && nbytes >= kLong && in_the_way(dst, from)) {
    put_around(dst, from, nbytes);
  } else {
    std::memcpy(dst, src, nbytes);
  }
}

inline void order_streamed() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace blinkcoll
