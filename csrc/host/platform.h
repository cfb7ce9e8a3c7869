// The host as a platform of dispatch.h: one lane, looks that never block, plain loops as movers.
#pragma once

#include <cstring>
#include <vector>

#include "blinkcoll/dispatch.h"
#include "host/movers.h"

namespace blinkcoll {

class HostPlatform {
 public:
  explicit HostPlatform(const Launch& launch) : launch_(launch) {}

  u32 lane() const { return 0; }
  u32 lanes() const { return 1; }
  bool all(bool mine) const { return mine; }
  // One lane: the release and acquire of publish() and look() are all the order there is to make.
  void barrier() const {}

  // Acquire: pairs with publish(); what the peer wrote before it is visible after it. `give_up` is set by the loop that
  // owns the deadline (run.cpp), so that a look costs one load.
  Look look(const u64* word, u64 target) const {
    if (__atomic_load_n(word, __ATOMIC_ACQUIRE) >= target) return Look::kReached;
    return give_up ? Look::kGaveUp : Look::kPending;
  }

  // Relaxed: for the note about a wait that failed; orders nothing.
  u64 peek(const u64* word) const { return __atomic_load_n(word, __ATOMIC_RELAXED); }

  // Relaxed: a flag that only says "leave"; no data is read on the strength of it.
  bool aborted() const { return __atomic_load_n(pointer<u32>(launch_.abort), __ATOMIC_RELAXED) != 0; }
  void abort() const { __atomic_store_n(pointer<u32>(launch_.abort), 1, __ATOMIC_RELAXED); }

  // Release: everything this lane read or wrote in the step is ordered before it; the peer's look() acquires it.
  void publish(u64* word, u64 value) const { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
  void publish_local(u64* word, u64 value) const { publish(word, value); }

  void copy(char* const* dsts, u32 ndsts, const char* src, u64 nbytes) const {
    for (u32 d = 0; d < ndsts; d++) {
      if (dsts[d] != src) std::memcpy(dsts[d], src, nbytes);
    }
  }

  void reduce(char* const* dsts, u32 ndsts, char* const* srcs, u32 nsrcs, u64 count, const Scaling& scaling) const {
    reduce_on_host(launch_.dtype, launch_.op, dsts, ndsts, srcs, nsrcs, count, scaling);
  }

  // What a switch would do, by the memory of each rank: added in the order of ranks, 16-bit floats in float32.
  void move_group(const GroupStep& g) const {
    std::vector<char*> srcs(g.srcs, g.srcs + g.nsrcs), dsts(g.dsts, g.dsts + g.ndsts);
    for (u32 rank = 0; g.from && rank < g.from->nranks; rank++) srcs.push_back(g.from->at(rank));
    for (u32 rank = 0; g.to && rank < g.to->nranks; rank++) dsts.push_back(g.to->at(rank));
    if (g.plain) return copy(dsts.data(), u32(dsts.size()), srcs[0], g.nbytes);
    reduce(dsts.data(), u32(dsts.size()), srcs.data(), u32(srcs.size()), g.count, g.scaling);
  }

  bool give_up = false;

 private:
  const Launch& launch_;
};

}  // namespace blinkcoll
