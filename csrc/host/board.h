// What every rank shows the others, and `blinkcoll status`: a page of shared memory a rank, behind one for the group.
//
// A rank writes its own page: how many calls it has begun and ended, the last of them as call words, what it waits for, and
// why it failed. Others write `fate` only. Nobody has to read anything while all goes well: a call costs its rank three
// stores and one load of a word that changes when something is wrong (`alarm`). Only a rank that has slept in vain looks at
// the pages of others.
//
// Fences. `begun` and `words`: a word is stored, with release, before the number that makes it valid, with release, so who
// acquires the number reads that word or a later one; differs() says how it tells the later one. `fate`, `failed` and the
// texts: stored before `alarm`, with release; who acquires `alarm` sees them. A call that begins may miss an alarm that is
// raised just then; it will look again before it sleeps.
#pragma once

#include <vector>

#include "blinkcoll/types.h"
#include "host/caller.h"
#include "host/callword.h"

namespace blinkcoll {

constexpr u32 kBoardVersion = 1, kBoardBytes = 4096, kWords = 64, kSweep = 16;

enum Fate : u32 { kHere = 0, kDied = 1, kLeft = 2, kClosed = 3 };

// What a rank waits for, from its last look before it slept; `version` is odd while it is being written.
struct WaitNote {
  u32 version, channel, step, peer;
  u64 call, iteration, target, seen;
  u64 since_ns;  // of CLOCK_MONOTONIC, which never jumps; 0: it does not wait
  u32 slot, pad;  // 1: for a free slot, 0: for a chunk
};

struct Board {
  char address[256];  // where this rank can be met if others are gone (bootstrap.py)
  u64 started;        // when its process was, in clock ticks since boot (proc(5)): tells it from a later one of its number
  u32 pid;            // in its own namespace
  u32 stopped;        // this rank alone has to leave its calls
  char process[48];   // a random name of the process

  alignas(128) u64 begun;
  u64 ended;
  alignas(128) u64 words[kWords];  // of call i at i % kWords
  alignas(128) WaitNote waits;
  alignas(128) WaitNote pair_waits;  // of a send or receive
  alignas(128) u32 fate;
  u32 failed;       // FailureKind of board.py; 0: it has not
  u64 failed_call;  // the first call that cannot succeed
  char why[2040];
};

struct BoardHeader {
  char magic[8];
  u32 version, nranks;
  char name[240];
  alignas(128) u32 alarm;  // not zero: look at fates and failures
  u32 first;               // the rank that failed first, + 1; its reason is the group's
};

static_assert(sizeof(Board) <= kBoardBytes && sizeof(BoardHeader) <= kBoardBytes, "a page each");

enum class Verdict : u32 { kGoOn = 0, kFailed = 1, kGone = 2, kDiffers = 3, kStopped = 4 };

class Boards {
 public:
  // `base`: of the header's page; the ranks' follow it.
  Boards(u64 base, u32 rank, u32 nranks) : base_(base), rank_(rank), nranks_(nranks), compared_(nranks) {}

  // -- this rank's calls; the caller sees to it that one begins after the other has ended

  // A call that is about to be set up; begin() then counts it no second time.
  void announce(u64 base_word) { count(announced_word(base_word), true); }
  // False where there is no point in it; verdict() says why.
  bool begin(u64 word) {
    count(word, false);
    if (number_ % kSweep == 0 && anyone_differs()) return false;
    return !alarmed() || !must_leave();
  }
  // Relaxed would do for data (counters carry its order); release, so that who finds this rank dead and the call ended
  // also finds the counters that it has raised.
  void end() {
    __atomic_store_n(&mine().ended, number_, __ATOMIC_RELEASE);
    last_ = Verdict::kGoOn;
  }
  // An announced call is not begun after all (its arguments were refused): it counts as ended.
  void cancel() {
    if (announced_) end();
    announced_ = false;
  }

  // Wait until all have begun the same call, as those do who want to know before any data moves. False as in begin(), or
  // where not all came in time or the caller is interrupted.
  bool assemble(u64 timeout_ns, Caller& caller);

  // -- looking at others

  // Relaxed: what it tells is looked for under an acquire in must_leave().
  bool alarmed() const { return __atomic_load_n(&header().alarm, __ATOMIC_RELAXED) != 0; }

  // Whether the call under way can still succeed, as far as failures and deaths tell. A rank that has gone does no harm to
  // calls that it has ended, and a failure none to earlier calls.
  bool must_leave() {
    if (!__atomic_load_n(&header().alarm, __ATOMIC_ACQUIRE)) return false;
    if (__atomic_load_n(&mine().stopped, __ATOMIC_ACQUIRE)) return leave(Verdict::kStopped, rank_, number_);
    const u32 first = __atomic_load_n(&header().first, __ATOMIC_ACQUIRE);
    for (u32 i = 0; first && i < nranks_; i++) {  // the first to fail first: its reason is the group's
      const u32 r = (first - 1 + i) % nranks_;
      if (__atomic_load_n(&board(r).failed, __ATOMIC_ACQUIRE) && board(r).failed_call <= number_) return leave(Verdict::kFailed, r, number_);
    }
    for (u32 r = 0; r < nranks_; r++) {
      if (r != rank_ && __atomic_load_n(&board(r).fate, __ATOMIC_ACQUIRE) != kHere && __atomic_load_n(&board(r).ended, __ATOMIC_ACQUIRE) < number_)
        return leave(Verdict::kGone, r, number_);
    }
    return false;
  }

  // The same for a send or receive: it ends with its peer, or with the group.
  bool must_leave_pair(u32 peer) const {
    if (!__atomic_load_n(&header().alarm, __ATOMIC_ACQUIRE)) return false;
    return __atomic_load_n(&mine().stopped, __ATOMIC_ACQUIRE) || __atomic_load_n(&header().first, __ATOMIC_ACQUIRE) || __atomic_load_n(&board(peer).fate, __ATOMIC_ACQUIRE) != kHere;
  }

  // Whether a rank calls something else than this one where this one is now.
  bool differs(u32 r) {
    const u64 theirs = r == rank_ ? 0 : word(r, number_);
    return theirs && !same_call(theirs, mine().words[number_ % kWords]) && leave(Verdict::kDiffers, r, number_);
  }
  // The same for all ranks and all calls since it was asked last. Some ranks of some collectives wait for nobody, and would
  // not notice: so this is asked once in kSweep calls, too.
  bool anyone_differs();

  // A rank's call of that number; 0 where it has not come to it, or it is long ago. A writer stores word i + kWords over
  // word i after `begun` was i + kWords - 1, and both with release: who has read the new word, by acquire, finds at least
  // that number after it.
  u64 word(u32 r, u64 number) const {
    const Board& b = board(r);
    if (number == 0 || __atomic_load_n(&b.begun, __ATOMIC_ACQUIRE) < number) return 0;
    const u64 word = __atomic_load_n(&b.words[number % kWords], __ATOMIC_ACQUIRE);
    return __atomic_load_n(&b.begun, __ATOMIC_ACQUIRE) + 1 < number + kWords ? word : 0;
  }

  // -- telling others

  // Say what this rank waits for (or, since_ns = 0, that it does not). Relaxed inside: the reader takes what it finds
  // between two looks at the same even version.
  static void note(WaitNote& shown, WaitNote now) {
    const u32 version = shown.version;
    __atomic_store_n(&shown.version, version + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    auto put = [](auto& to, auto value) { __atomic_store_n(&to, value, __ATOMIC_RELAXED); };
    put(shown.channel, now.channel), put(shown.step, now.step), put(shown.peer, now.peer), put(shown.call, now.call), put(shown.iteration, now.iteration);
    put(shown.target, now.target), put(shown.seen, now.seen), put(shown.since_ns, now.since_ns), put(shown.slot, now.slot);
    __atomic_store_n(&shown.version, version + 2, __ATOMIC_RELEASE);
  }

  // This rank's failure, from call `call` on, with its reason; the first to fail gives the group its reason. Once only.
  void fail(u32 kind, u64 call, const char* why, u64 length);
  // A rank has gone; what is known already stays.
  void mark(u32 r, u32 fate) {
    u32 here = kHere;
    __atomic_compare_exchange_n(&board(r).fate, &here, fate, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
    alarm();
  }
  // This rank's calls have to end, nobody else's.
  void stop() {
    __atomic_store_n(&mine().stopped, 1, __ATOMIC_RELEASE);
    alarm();
  }

  Board& board(u32 r) const { return *reinterpret_cast<Board*>(base_ + u64(r + 1) * kBoardBytes); }
  BoardHeader& header() const { return *reinterpret_cast<BoardHeader*>(base_); }
  Board& mine() const { return board(rank_); }
  u64 number() const { return number_; }
  u32 rank() const { return rank_; }
  Verdict verdict() const { return last_; }
  u32 culprit() const { return culprit_; }
  u64 where() const { return where_; }  // the call that the verdict is about

 private:
  void count(u64 word, bool announced) {
    Board& b = mine();
    if (!announced_) number_++;
    announced_ = announced;
    __atomic_store_n(&b.words[number_ % kWords], word, __ATOMIC_RELEASE);
    __atomic_store_n(&b.begun, number_, __ATOMIC_RELEASE);
  }
  // Release: fates and failures are stored before it.
  void alarm() { __atomic_store_n(&header().alarm, 1, __ATOMIC_RELEASE); }
  bool leave(Verdict verdict, u32 culprit, u64 where) {
    last_ = verdict;
    culprit_ = culprit;
    where_ = where;
    return true;
  }

  u64 base_, number_ = 0, where_ = 0;
  u32 rank_, nranks_, culprit_ = 0;
  Verdict last_ = Verdict::kGoOn;
  bool announced_ = false;
  std::vector<u64> compared_;  // by rank: the calls up to this one are the same
};

// What a rank that waits looks at before it sleeps, and shows: part of every call of a communicator.
struct Watch {
  Boards* boards;
  int peer = -1;  // of a send or receive; -1: the call is a collective

  // Whether to leave. `thoroughly`: all others' calls are compared with this one, not only that of the rank waited for.
  bool must_leave(u32 waited_for, bool thoroughly) const {
    if (peer >= 0) return boards->must_leave_pair(u32(peer));
    return boards->must_leave() || (thoroughly ? boards->anyone_differs() : boards->differs(waited_for));
  }
  void show(WaitNote note) const {
    note.call = boards->number();
    if (peer >= 0) note.peer = u32(peer);
    Boards::note(peer >= 0 ? boards->mine().pair_waits : boards->mine().waits, note);
  }
};

}  // namespace blinkcoll
