// A rank that falls asleep over and over, and one that raises its counter at just that moment: no ring may be lost.
//
//   doorbells FENCED ROUNDS SEED SECONDS
//
// After so many seconds it takes no further round: on some machines a fence takes milliseconds.
//
// FENCED 1: by fences of the sleeper's (host/fences.h); 0: by the writer's own. Exit 0: the reader was woken, or saw the
// counter, every time; 4: it slept to the end of its time although the counter had been raised; 5: no such fences here.
// Built with -DBC_WITHOUT_FENCES the sleeper leaves its fence out, and rings are lost.
#include <sched.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <thread>

#include "host/doorbell.h"
#include "host/fences.h"

using namespace blinkcoll;

struct alignas(4096) Shared {
  alignas(128) CounterLine line;
  alignas(128) u32 bell;
  alignas(128) u64 seen;
};

constexpr std::chrono::milliseconds kLongest(200);

// Some hundred nanoseconds at most: about as long as the other one takes to see what this one has stored.
static void wait_a_moment(u64& state, u64 most) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  for (u64 i = state >> 20 & most; i; i--) __asm__ __volatile__("" ::: "memory");
}

// Of the cores that this process may use the i-th, if there are so many.
static void run_on(int i) {
  cpu_set_t all, one;
  CPU_ZERO(&one);
  if (sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) < 2) return;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, &all) && i-- == 0) CPU_SET(cpu, &one);
  sched_setaffinity(0, sizeof one, &one);
}

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const bool fenced = std::atoi(argv[1]) != 0;
  const u64 rounds = std::strtoull(argv[2], nullptr, 10);
  const u64 seed = std::strtoull(argv[3], nullptr, 10);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::atoi(argv[4]));
  if (fenced && !join_fences()) return 5;
  Shared& shared = *static_cast<Shared*>(mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  shared.line.doorbell = int(reinterpret_cast<char*>(&shared.bell) - reinterpret_cast<char*>(&shared.line));
  std::thread writer([&] {
    run_on(1);
    u64 state = seed * 0x9e3779b97f4a7c15ull + 1;
    for (u64 n = 1; n <= rounds; n++) {
      while (__atomic_load_n(&shared.seen, __ATOMIC_ACQUIRE) + 1 < n) {
      }
      wait_a_moment(state, fenced ? 16383 : 255);
      raise(&shared.line.value, n, fenced);
    }
  });
  run_on(0);
  u64 lost = 0, slept = 0, took = 0, state = seed * 0xd1b54a32d192ed03ull + 1;
  Bedtime bedtime(&shared.bell, fenced);
  for (u64 n = 1; n <= rounds; n++) {
    wait_a_moment(state, 1023);
    auto look = [&] { return __atomic_load_n(&shared.line.value, __ATOMIC_SEQ_CST) >= n; };
    bool seen = false, may_sleep = false;
    while (!seen && !may_sleep) {
      const bool marks = bedtime.begin_round(true);
      if (marks) mark(&shared.line.value);
      seen = look();
      if (seen) {
        bedtime.stay_up();
      } else {
        may_sleep = bedtime.may_sleep(true);
      }
    }
    if (!seen) {
      slept++;
      // Woken, it may be for no reason; or not yet, since the writer does not run. Lost: long raised, and never rung.
      const u32 rings = bedtime.rings();
      auto rung = [&] { return __atomic_load_n(&shared.bell, __ATOMIC_ACQUIRE) != rings; };
      sleep_on(&shared.bell, rings, kLongest);
      while (!rung() && !look()) sleep_on(&shared.bell, rings, kLongest);
      for (auto began = std::chrono::steady_clock::now(); !rung() && std::chrono::steady_clock::now() - began < kLongest;) sleep_on(&shared.bell, rings, kLongest);
      lost += !rung();
    }
    __atomic_store_n(&shared.seen, n, __ATOMIC_RELEASE);
    took = n;
    if (lost || std::chrono::steady_clock::now() > end) break;
  }
  __atomic_store_n(&shared.seen, rounds, __ATOMIC_RELEASE);
  writer.join();
  std::printf("%llu rounds, slept in %llu, lost %llu\n", static_cast<unsigned long long>(took), static_cast<unsigned long long>(slept), static_cast<unsigned long long>(lost));
  return lost ? 4 : 0;
}
