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

inline void put_streamed(char* dst, const char* src, u64 nbytes) {
#if defined(__SSE2__)
  const u64 head = u64(-reinterpret_cast<i64>(dst)) & 63;
  if (nbytes >= head + 64) {
    std::memcpy(dst, src, head);
    dst += head, src += head, nbytes -= head;
    for (; nbytes >= 64; dst += 64, src += 64, nbytes -= 64) {  // whole lines
      const __m128i* from = reinterpret_cast<const __m128i*>(src);
      __m128i* to = reinterpret_cast<__m128i*>(dst);
      const __m128i a = _mm_loadu_si128(from), b = _mm_loadu_si128(from + 1), c = _mm_loadu_si128(from + 2), d = _mm_loadu_si128(from + 3);
      _mm_stream_si128(to, a);
      _mm_stream_si128(to + 1, b);
      _mm_stream_si128(to + 2, c);
      _mm_stream_si128(to + 3, d);
    }
  }
#endif
  std::memcpy(dst, src, nbytes);
}

inline void put(char* dst, const void* src, u64 nbytes, bool streamed) {
  if (streamed) {
    put_streamed(dst, static_cast<const char*>(src), nbytes);
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
