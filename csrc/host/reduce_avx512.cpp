// Reductions compiled for AVX-512 (CMakeLists.txt has the flags).
#if defined(__x86_64__)
#define blinkcoll blinkcoll_avx512
#include "host/reduce_blocks.h"

BC_REDUCE_ENTRY(reduce_avx512)
#endif
