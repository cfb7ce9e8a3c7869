#include "run.h"

#include <algorithm>
#include <chrono>
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

  Clock::time_point last_progress = Clock::now();
  for (u32 idle_rounds = 0;;) {
    Round round = take_turns(platform, channels);
    if (round.failed) {
      platform.abort();
      return false;
    }
    if (!round.unfinished) return true;
    if (round.progress) {
      idle_rounds = 0;
      last_progress = Clock::now();
      continue;
    }
    idle_rounds = std::min(idle_rounds + 1, 1u << 20);
    pause(idle_rounds);
    bool late = Clock::now() - last_progress > std::chrono::nanoseconds(launch.timeout_ns);
    platform.give_up = late || platform.aborted();  // the next round records what each channel waits for
  }
}

std::vector<bool> run_threads(const std::vector<Launch>& launches) {
  for (const Launch& launch : launches) check(launch);
  std::vector<char> ran(launches.size(), 0);
  std::vector<std::thread> threads;
  threads.reserve(launches.size());
  for (size_t i = 0; i < launches.size(); i++) {
    threads.emplace_back([&, i] { ran[i] = run_rank(launches[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  return {ran.begin(), ran.end()};
}

}  // namespace blinkcoll
