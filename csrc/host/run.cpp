#include "run.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "platform.h"

namespace blinkcoll {
namespace {

using Clock = std::chrono::steady_clock;

// From eager to patient: look again at once, then let others run, then sleep. With more ranks than cores a yield is what
// lets the peer that we wait for proceed.
void pause(u32 idle_rounds) {
  if (idle_rounds < 64) return;
  if (idle_rounds < 4096) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

void check(const Launch& launch) {
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

}  // namespace

bool run_rank(const Launch& launch) {
  check(launch);
  ProgramView view{pointer<const char>(launch.program)};
  HostPlatform platform(launch);
  std::vector<ChannelRun<HostPlatform>> channels;
  u32 nchannels = view.rank(launch.rank).nchannels;
  channels.reserve(nchannels);
  for (u32 c = 0; c < nchannels; c++) channels.emplace_back(launch, c);

  // Time counts as idle only as far as this thread was there to look: a job that was stopped as a whole and goes on has
  // not waited for anybody meanwhile.
  constexpr std::chrono::nanoseconds kMostBetweenLooks = std::chrono::milliseconds(100);
  std::chrono::nanoseconds idle(0);
  Clock::time_point last_look = Clock::now();
  for (u32 idle_rounds = 0;;) {
    Round round = take_turns(platform, channels);
    if (round.failed) {
      platform.abort();
      return false;
    }
    if (!round.unfinished) return true;
    if (round.progress) {
      idle_rounds = 0;
      idle = std::chrono::nanoseconds(0);
      platform.give_up = false;
      last_look = Clock::now();
      continue;
    }
    idle_rounds = std::min(idle_rounds + 1, 1u << 20);
    pause(idle_rounds);
    bool was_late = late(idle, launch);  // and the round since then brought nothing either
    Clock::time_point now = Clock::now();
    idle += std::min<std::chrono::nanoseconds>(now - last_look, kMostBetweenLooks);
    last_look = now;
    platform.give_up = was_late || platform.aborted();  // the next round records what each channel waits for
  }
}

std::vector<bool> run_threads(const std::vector<Launch>& launches, const std::function<bool()>& interrupted) {
  for (const Launch& launch : launches) check(launch);
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
