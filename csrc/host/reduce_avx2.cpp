// Reductions compiled for AVX2 (CMakeLists.txt has the flags).
#if defined(__x86_64__)
#define blinkcoll blinkcoll_avx2
#include "host/reduce_blocks.h"

BC_REDUCE_ENTRY(reduce_avx2)
#endif
