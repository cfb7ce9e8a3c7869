#include "run.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

#include "platform.h"

namespace blinkcoll {
namespace {

using Clock = std::chrono::steady_clock;

// Rounds without progress: look again at once, for some 0.2 ms, since to be woken costs a rank of a virtual machine tens of
// microseconds (measured: all-gathers of 4 MiB 1.2x faster than with 256 looks); then let others run, then sleep until a peer rings. With more ranks than cores
// it is the yields that let the peer that we wait for proceed, so they come at once; beside other work each may cost a time
// slice, so they end.
constexpr u32 kSpins = 4096, kCrowdedSpins = 2, kYields = 64;
// Rounds that the caller's locks are held for: about a microsecond, which small calls of ranks that are in step take. To
// let go of an interpreter's lock and take it again costs a quarter of such a call.
constexpr u32 kMoment = 16;
// Between two looks: each look takes a counter's line away from the peer that is about to write it (measured, a barrier of two
// ranks: 0.32 us with two pauses, 0.38 with four, 0.35 and more with one).
constexpr int kPauses = 2;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

bool late(std::chrono::nanoseconds idle, const Launch& launch) { return u64(idle.count()) > launch.timeout_ns; }

// One round: every unfinished channel takes a step if it can.
struct Round {
  bool progress = false, unfinished = false, failed = false;
};

Round take_turns(HostPlatform& platform, std::vector<ChannelRun<HostPlatform>>& channels) {
  Round round;
  for (auto& channel : channels) {
    switch (channel.advance(platform)) {
      case Outcome::kProgress: round.progress = round.unfinished = true; break;
      case Outcome::kBlocked: round.unfinished = true; break;
      case Outcome::kFailed: round.failed = true; break;
      case Outcome::kFinished: break;
    }
  }
  return round;
}

// What a rank waits for, on its board.
class Shown {
 public:
  Shown(const Watch* watch, const Launch& launch) : watch_(watch), launch_(launch) {}

  // Before a sleep: show it, and look whether there is any point in it. `thoroughly` once it has slept in vain.
  bool must_leave(HostPlatform& platform, std::vector<ChannelRun<HostPlatform>>& channels, Clock::time_point since, bool thoroughly) {
    if (!watch_) return false;
    WaitNote note{};
    note.peer = launch_.rank;
    for (u32 c = 0; c < channels.size(); c++) {
      const ChannelRecord wait = channels[c].waiting(platform);
      if (wait.kind == kOnNothing) continue;
      note.channel = c, note.step = wait.step, note.iteration = wait.iteration, note.target = wait.target, note.seen = wait.seen;
      if (wait.kind != kOnConnection) continue;  // another channel of this rank, which waits for somebody in turn
      const ConnectionEntry& connection = ProgramView{pointer<const char>(launch_.program)}.connection(wait.index);
      note.slot = connection.src == launch_.rank;
      note.peer = note.slot ? connection.dst : connection.src;
      break;
    }
    note.since_ns = u64(std::chrono::nanoseconds(since.time_since_epoch()).count());  // CLOCK_MONOTONIC, on Linux
    watch_->show(note);
    shown_ = true;
    return watch_->must_leave(note.peer, thoroughly);
  }

  void take_down() {
    if (shown_) watch_->show({});
    shown_ = false;
  }

 private:
  const Watch* watch_;
  const Launch& launch_;
  bool shown_ = false;
};

// The channels of a call. Their memory is kept from call to call of a thread; a call inside another one (of another communicator, by a
// signal's handler) finds none, and takes its own.
class Kept {
 public:
  Kept() { channels.swap(memory()); }
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;
  ~Kept() {
    channels.clear();
    channels.swap(memory());
  }
  std::vector<ChannelRun<HostPlatform>> channels;

 private:
  static std::vector<ChannelRun<HostPlatform>>& memory() {
    thread_local std::vector<ChannelRun<HostPlatform>> kept;
    return kept;
  }
};

// That this process may use.
u32 cores() {
#if defined(__linux__)
  cpu_set_t mine;
  if (sched_getaffinity(0, sizeof mine, &mine) == 0) return u32(CPU_COUNT(&mine));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace

void check_launch(const Launch& launch) {
  const ProgramHeader& h = *pointer<const ProgramHeader>(launch.program);
  if (h.magic != kProgramMagic || h.version != kProgramVersion) throw std::invalid_argument("run: these bytes are not a program of this version");
  if (launch.rank >= h.nranks) throw std::invalid_argument("run: the program has no such rank");
  ProgramView view{pointer<const char>(launch.program)};
  for (u32 i = 0; i < h.nsteps; i++) {
    if (view.step(i).op == kReduce && !can_reduce(launch.dtype, launch.op, launch.prescale != 1, launch.divisor != 1)) {
      throw std::invalid_argument("run: no mover for this dtype and operation");
    }
  }
}

bool run_rank(const Launch& launch) {
  check_launch(launch);
  static const u32 ncores = cores();
  Around around;
  around.crowded = pointer<const ProgramHeader>(launch.program)->nranks > ncores;
  return run_checked(launch, around);
}

bool run_checked(const Launch& launch, const Around& around) {
  ProgramView view{pointer<const char>(launch.program)};
  HostPlatform platform(launch, around);
  Kept kept;
  std::vector<ChannelRun<HostPlatform>>& channels = kept.channels;
  u32 nchannels = view.rank(launch.rank).nchannels;
  channels.reserve(nchannels);
  for (u32 c = 0; c < nchannels; c++) channels.emplace_back(launch, c);

  // Time counts as idle only as far as this thread was there to look: a job that was stopped as a whole and goes on has
  // not waited for anybody meanwhile.
  constexpr std::chrono::nanoseconds kFirstSleep = std::chrono::milliseconds(10), kMostBetweenLooks = std::chrono::milliseconds(100);
  std::chrono::nanoseconds idle(0);
  Clock::time_point last_look, idle_since;
  const u32 spins = around.crowded ? kCrowdedSpins : kSpins, most = spins + kYields, moment = std::min(kMoment, spins);
  Shown shown(around.watch, launch);
  Bedtime bedtime(pointer<const u32>(launch.doorbell), around.fenced);
  for (u32 idle_rounds = 0;;) {
    platform.marking = bedtime.begin_round(idle_rounds >= most);
    platform.rung = platform.rung || platform.marking;
    Round round = take_turns(platform, channels);
    if (round.failed) {
      platform.abort();
      return false;
    }
    if (!round.unfinished) {
      shown.take_down();
      return true;
    }
    if (round.progress) {
      shown.take_down();
      idle_rounds = 0;
      platform.give_up = false;
      bedtime.stay_up();
      continue;
    }
    if (idle_rounds == moment && around.caller) around.caller->takes_long();
    if (idle_rounds < most) {
      if (idle_rounds++ < spins) {
        for (int i = 0; i < kPauses; i++) relax();
      } else {
        std::this_thread::yield();
      }
      continue;  // the round before a sleep is one that marks
    }
    if (!bedtime.may_sleep(platform.rung)) continue;
    const bool first = idle_rounds++ == most;
    if (first) {
      idle = std::chrono::nanoseconds(0);
      idle_since = last_look = Clock::now();
    }
    bool was_late = late(idle, launch);  // and the round since then brought nothing either
    // An alarm comes with a ring (wake(), calls.h) where it is raised in this process. Had it been raised after this look
    // and before the sleep, the ring would have changed what `rings` is compared with.
    // The first sleep is short and comes without a look: with more ranks than cores, most waits end in it.
    if (!first && shown.must_leave(platform, channels, idle_since, idle >= kMostBetweenLooks)) {
      platform.abort();
    } else {
      platform.sleep(bedtime, first ? kFirstSleep : kMostBetweenLooks);
    }
    if (around.caller && around.caller->interrupted()) platform.abort();
    Clock::time_point now = Clock::now();
    idle += std::min<std::chrono::nanoseconds>(now - last_look, kMostBetweenLooks);
    last_look = now;
    platform.give_up = was_late || platform.aborted();  // the next round records what each channel waits for
  }
}

std::vector<bool> run_threads(const std::vector<Launch>& launches, const std::function<bool()>& interrupted) {
  for (const Launch& launch : launches) check_launch(launch);
  auto abort_all = [&] {
    for (const Launch& launch : launches) HostPlatform(launch).abort();
  };
  std::vector<char> ran(launches.size(), 0);
  std::exception_ptr error;
  size_t left = 0;
  std::mutex mutex;
  std::condition_variable ended;
  std::vector<std::thread> threads;
  threads.reserve(launches.size());
  auto body = [&](size_t i) {
    std::exception_ptr mine;
    try {
      ran[i] = run_rank(launches[i]);
    } catch (...) {
      mine = std::current_exception();
      abort_all();
    }
    std::lock_guard<std::mutex> lock(mutex);
    if (mine && !error) error = mine;
    left--;
    ended.notify_all();
  };
  for (size_t i = 0; i < launches.size(); i++) {
    std::lock_guard<std::mutex> lock(mutex);
    try {
      threads.emplace_back(body, i);
      left++;
    } catch (...) {  // no thread for this rank: those that run would wait for it
      error = std::current_exception();
      abort_all();
      break;
    }
  }
  {
    std::unique_lock<std::mutex> lock(mutex);
    while (left) {
      ended.wait_for(lock, std::chrono::milliseconds(100));
      if (!left) break;
      lock.unlock();
      if (interrupted()) abort_all();
      lock.lock();
    }
  }
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
  return {ran.begin(), ran.end()};
}

}  // namespace blinkcoll
