// The host as a platform of dispatch.h: one lane, looks that never block, plain loops as movers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "blinkcoll/dispatch.h"
#include "host/board.h"
#include "host/caller.h"
#include "host/doorbell.h"
#include "host/farmovers.h"
#include "host/movers.h"
#include "host/peers.h"

// Tests hold ranks up here, wherever they look at what another one publishes or publish something (tests/csrc/delays.h).
#if defined(BC_DELAYS)
void bc_delay();
#else
inline void bc_delay() {}
#endif

namespace blinkcoll {

// What a call writes past the caches: slots, where a line that the peer has just read takes longer to get back than one from memory, and
// outputs of which little would be left in the caches in the end.
enum Stores : u32 { kThroughCaches = 0, kSlotsPast = 1, kOutputsPast = 2, kAllPast = 3, kBySize = 4 };
// By size: outputs, where a call's input and output together are of this size, about that of a last-level cache, or larger. (sysconf()
// counts the caches of all sockets together on some machines, and is of no use here.)
constexpr u64 kStreamedBytes = 32 << 20;
// What lies in the line of a slot's own counter (launch.h): counter, call, small data; the mark of who sleeps has another.
static_assert(kHeadData >= offsetof(CounterLine, call) + sizeof(u64) && kHeadData + kHeadRoom <= offsetof(CounterLine, waited), "data lie between");

// Pieces that are added up and written to slots by copying, at least.
constexpr u64 kCopiedBytes = 8 << 10;

// What a call has around it, beside its launch.
struct Around {
  const int* processes = nullptr;  // see Peers; null where all ranks share one address space
  u64 word = 0;                    // of the call (callword.h); all ranks have the same
  const Watch* watch = nullptr;    // what is looked at, and shown, before a sleep
  u64* credit = nullptr;           // by connection: chunks that are known to have been taken; kept from call to call
  bool fenced = false;             // all ranks have joined the fences (fences.h)
  bool crowded = false;            // there are more ranks than cores that they may run on
  Caller* caller = nullptr;        // told of waits, and asked whether to go on
  Stores stores = kBySize;
};

class HostPlatform {
 public:
  explicit HostPlatform(const Launch& launch, const Around& around = {})
      : launch_(launch), peers_(around.processes), word_(around.word), credit_(around.credit), fenced_(around.fenced), input_(own(launch).buffer[kInput]), output_(own(launch).buffer[kOutput]),
        extent_(launch.count * launch.elem_size) {
    const bool large = (input_ == output_ ? 1 : 2) * extent_ >= kStreamedBytes;
    stores_ = around.stores != kBySize ? around.stores : large ? kOutputsPast : kThroughCaches;
  }

  // Lines save a fence and a trip of a flag over a link. Between threads a release store is a store, and a look at a
  // counter tells without blocking whether all of a chunk is there, so all protocols are run as the simple one.
  static constexpr bool kLines = false;
  static constexpr bool kSigned = true;
  static constexpr bool kHeaded = true;
  static constexpr bool kSkewed = true;
  static constexpr bool kSpots = true;
  static constexpr bool kFar = true;
  static constexpr bool kKeepsCredit = true;

  u32 lane() const { return 0; }
  u32 lanes() const { return 1; }
  bool all(bool mine) const { return mine; }
  // One lane: the release and acquire of publish() and look() are all the order there is to make.
  void barrier() const {}

  // Acquire: pairs with publish(); what the peer wrote before it is visible after it. `give_up` and `marking` are set by
  // the loop that owns the deadline and the sleep (run.cpp), so that a look costs one load.
  Look look(const u64* word, u64 target) const {
    bc_delay();
    if (__atomic_load_n(word, __ATOMIC_ACQUIRE) >= target) return Look::kReached;
    if (marking) {
      rung = mark(word) && rung;
      if (__atomic_load_n(word, __ATOMIC_SEQ_CST) >= target) return Look::kReached;
    }
    return give_up ? Look::kGaveUp : Look::kPending;
  }

  // Credit that was acquired once is not looked for again: the line is the reader's to write, and to look takes it away.
  Look look_for_credit(u32 connection, const u64* word, u64 target) const {
    if (!credit_) return look(word, target);
    if (credit_[connection] >= target) return Look::kReached;
    const Look seen = look(word, target);
    if (seen != Look::kReached) return seen;
    credit_[connection] = __atomic_load_n(word, __ATOMIC_ACQUIRE);  // as in look(); often more has come
    return seen;
  }

  // Relaxed: for the note about a wait that failed; orders nothing.
  u64 peek(const u64* word) const { return __atomic_load_n(word, __ATOMIC_RELAXED); }

  // Relaxed: a flag that only says "leave"; no data is read on the strength of it.
  bool aborted() const { return __atomic_load_n(pointer<u32>(launch_.abort), __ATOMIC_RELAXED) != 0; }
  void abort() const { __atomic_store_n(pointer<u32>(launch_.abort), 1, __ATOMIC_RELAXED); }

  // Release (and more, for the sleeper's sake, where it does not fence itself: doorbell.h): everything this lane read or wrote in the step is ordered
  // before it; the peer's look() acquires it.
  void publish(u64* word, u64 value) const {
    bc_delay();
    raise(word, value, fenced_);
    bc_delay();
  }
  // Only this thread looks at these.
  void publish_local(u64* word, u64 value) const { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

  // Until a peer raises a counter that was looked at while `marking`. Where nobody is sure to ring (counters in memory of the
  // host's, programs set up without doorbells), a moment.
  void sleep(const Bedtime& bedtime, std::chrono::nanoseconds most) const {
    if (bedtime.safe() && rung) {
      sleep_on(pointer<u32>(launch_.doorbell), bedtime.rings(), most);
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

  void copy(char* const* dsts, u32 ndsts, const char* src, u64 nbytes) const {
    char* once[kMostOperands];
    if (ndsts > 1 && ndsts <= kMostOperands) ndsts = each_once(dsts, ndsts, once), dsts = once;
    const u64 own = own_outputs(dsts, ndsts), others = all_of(ndsts) & ~own;
    copy_on_host(dsts, ndsts, src, nbytes, {past_caches(own, others), others, stores_ & kSlotsPast && !is_own(src)});
  }

  void reduce(char* const* dsts, u32 ndsts, char* const* srcs, u32 nsrcs, u64 count, const Scaling& scaling) const {
    char* once[kMostOperands];
    if (ndsts > 1 && ndsts <= kMostOperands) ndsts = each_once(dsts, ndsts, once), dsts = once;
    const u64 own = own_outputs(dsts, ndsts), others = all_of(ndsts) & ~own, copied = count * launch_.elem_size >= kCopiedBytes ? others : 0;
    const bool fetched = stores_ & kSlotsPast && !std::all_of(srcs, srcs + nsrcs, [&](const char* src) { return is_own(src); });
    reduce_on_host(launch_.dtype, launch_.op, dsts, ndsts, srcs, nsrcs, count, scaling, {past_caches(own, others), copied, fetched});
  }

  // What a switch would do, by the memory of each rank: added in the order of ranks, 16-bit floats in float32.
  void move_group(const GroupStep& g) const {
    std::vector<char*> srcs(g.srcs, g.srcs + g.nsrcs), dsts(g.dsts, g.dsts + g.ndsts);
    for (u32 rank = 0; g.from && rank < g.from->nranks; rank++) srcs.push_back(g.from->at(rank));
    for (u32 rank = 0; g.to && rank < g.to->nranks; rank++) dsts.push_back(g.to->at(rank));
    if (g.plain) return copy(dsts.data(), u32(dsts.size()), srcs[0], g.nbytes);
    reduce(dsts.data(), u32(dsts.size()), srcs.data(), u32(srcs.size()), g.count, g.scaling);
  }

  // Plain accesses: ordered by the release of publish() and the acquire of look(), as the chunk itself is.
  void sign(u64* tail, u64 number, u32 slots) const {
    CounterLine& line = *reinterpret_cast<CounterLine*>(tail);
    if (slots <= kSignedCalls) line.call[turn_of(number, slots)] = word_;
  }
  bool agrees(const u64* tail, u64 number, u32 slots, u32 sync) {
    const CounterLine& line = *reinterpret_cast<const CounterLine*>(tail);
    if (slots > kSignedCalls || line.call[turn_of(number, slots)] == word_) return true;
    differs_ = line.call[turn_of(number, slots)];
    differs_at_ = sync;
    return false;
  }
  u64 differs() const { return differs_; }

  // Plain accesses, too.
  u32 skew(const u64* tail, u64 number, u32 slots) const { return reinterpret_cast<const CounterLine*>(tail)->skew[turn_of(number, slots)]; }
  void set_skew(u64* tail, u64 number, u32 slots, u32 skew) const { reinterpret_cast<CounterLine*>(tail)->skew[turn_of(number, slots)] = u8(skew); }

  u32 differs_at() const { return differs_at_; }

  bool far(u32 rank) const { return peers_.far(rank); }
  u32 lost() const { return peers_.lost(); }
  int error() const { return peers_.error(); }

  bool copy_far(const Remote* dsts, u32 ndsts, const Remote& src, u64 nbytes) { return copy_between(peers_, dsts, ndsts, src, nbytes); }

  bool reduce_far(const Remote* dsts, u32 ndsts, const Remote* srcs, u32 nsrcs, u64 count, const Scaling& scaling) {
    return reduce_between(peers_, launch_, dsts, ndsts, srcs, nsrcs, count, scaling, stores_ & kOutputsPast);
  }

  bool give_up = false;
  bool marking = false;
  mutable bool rung = true;  // whether all counters that were looked at in vain while marking have somebody who rings

 private:
  static const BufferAddresses& own(const Launch& launch) { return pointer<const BufferAddresses>(launch.buffers)[launch.rank]; }

  // Connections that are written alike may have their slots in one place (launch.py).
  static u32 each_once(char* const* dsts, u32 ndsts, char** once) {
    u32 n = 0;
    for (u32 d = 0; d < ndsts; d++)
      if (std::find(once, once + n, dsts[d]) == once + n) once[n++] = dsts[d];
    return n;
  }

  // Whether it lies in this rank's input or output, and so in no slot.
  bool is_own(const char* at) const { return u64(at) - input_ < extent_ || u64(at) - output_ < extent_; }

  static u64 all_of(u32 ndsts) { return ndsts < 64 ? (u64(1) << ndsts) - 1 : ~u64(0); }

  // Which destinations lie in this rank's output; the others are slots, for other ranks to read.
  u64 own_outputs(char* const* dsts, u32 ndsts) const {
    u64 mask = 0;
    for (u32 d = 0; d < ndsts && d < 64; d++) mask |= u64(u64(dsts[d]) - output_ < extent_) << d;
    return mask;
  }

  // Which of these destinations are written past the caches.
  u64 past_caches(u64 own, u64 others) const { return (stores_ & kOutputsPast ? own : 0) | (stores_ & kSlotsPast ? others : 0); }

  const Launch& launch_;
  Peers peers_;
  u64 word_, differs_ = 0;
  u64* credit_;
  bool fenced_;
  u32 differs_at_ = kMostSyncs;
  u64 input_, output_, extent_;
  Stores stores_;
};

}  // namespace blinkcoll
