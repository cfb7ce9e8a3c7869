#include "farmovers.h"

#include <vector>

#include "host/movers.h"

namespace blinkcoll {
namespace {

// All that is staged at a time; with the results it stays in a core's second cache (1 MiB and more since 2017).
constexpr u64 kStaged = 256 << 10, kLeast = 16 << 10;

// The calling thread's, kept from call to call.
char* staging(u64 nbytes) {
  thread_local std::vector<char> held;
  if (held.size() < nbytes + 64) held.resize(nbytes + 64);
  return held.data() + (64 - u64(held.data()) % 64) % 64;
}

bool store(Peers& peers, const Remote& dst, const char* from, u64 at, u64 nbytes) {
  if (peers.far(dst.rank)) return peers.write(dst.rank, dst.at + at, from, nbytes);
  char* to = dst.at + at;
  if (to != from) copy_on_host(&to, 1, from, nbytes);
  return true;
}

}  // namespace

bool copy_between(Peers& peers, const Remote* dsts, u32 ndsts, const Remote& src, u64 nbytes) {
  if (!peers.far(src.rank)) {
    for (u32 d = 0; d < ndsts; d++)
      if (!store(peers, dsts[d], src.at, 0, nbytes)) return false;
    return true;
  }
  if (ndsts == 1 && !peers.far(dsts[0].rank)) return peers.read(src.rank, dsts[0].at, src.at, nbytes);
  char* const staged = staging(kStaged);
  for (u64 at = 0; at < nbytes; at += kStaged) {
    const u64 n = nbytes - at < kStaged ? nbytes - at : kStaged;
    if (!peers.read(src.rank, staged, src.at + at, n)) return false;
    for (u32 d = 0; d < ndsts; d++)
      if (!store(peers, dsts[d], staged, at, n)) return false;
  }
  return true;
}

bool reduce_between(Peers& peers, const Launch& launch, const Remote* dsts, u32 ndsts, const Remote* srcs, u32 nsrcs, u64 count, const Scaling& scaling, bool streamed) {
  u32 staged_places = 0;
  for (u32 s = 0; s < nsrcs; s++) staged_places += peers.far(srcs[s].rank);
  u32 result_place = kMostOperands;  // where results for others are made, if there are any
  for (u32 d = 0; d < ndsts; d++)
    if (peers.far(dsts[d].rank)) result_place = staged_places;
  if (result_place != kMostOperands) staged_places++;
  u64 piece = kStaged / staged_places / 64 * 64;
  if (piece < kLeast) piece = kLeast;
  char* const staged = staging(piece * staged_places);
  const u64 step = piece / launch.elem_size;
  for (u64 begin = 0; begin < count; begin += step) {
    const u64 n = count - begin < step ? count - begin : step, at = begin * launch.elem_size, nbytes = n * launch.elem_size;
    char *from[kMostOperands], *to[kMostOperands];
    u32 place = 0;
    for (u32 s = 0; s < nsrcs; s++) {
      from[s] = srcs[s].at + at;
      if (!peers.far(srcs[s].rank)) continue;
      char* const copy = staged + piece * place++;
      if (!peers.read(srcs[s].rank, copy, from[s], nbytes)) return false;
      from[s] = copy;
    }
    u32 near = 0;
    u64 mask = 0;
    for (u32 d = 0; d < ndsts; d++) {
      if (peers.far(dsts[d].rank)) continue;
      mask |= u64(streamed) << near;
      to[near++] = dsts[d].at + at;
    }
    char* const result = staged + piece * result_place;
    if (result_place != kMostOperands) to[near++] = result;
    reduce_on_host(launch.dtype, launch.op, to, near, from, nsrcs, n, scaling, {mask});
    for (u32 d = 0; d < ndsts; d++)
      if (peers.far(dsts[d].rank) && !store(peers, dsts[d], result, at, nbytes)) return false;
  }
  return true;
}

}  // namespace blinkcoll
