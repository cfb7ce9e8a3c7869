// Fixed-width names without any standard header, so that the same files compile under NVRTC and on the host.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define BC_HD __host__ __device__ __forceinline__
#else
#define BC_HD inline
#endif

namespace blinkcoll {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

static_assert(sizeof(u8) == 1 && sizeof(u16) == 2 && sizeof(u32) == 4 && sizeof(u64) == 8, "fixed-width names");

}  // namespace blinkcoll
