// Runs all ranks of a prepared memory image again and again, each holding still at random where it looks or publishes.
//
//   delayed_ranks IMAGE NRANKS CALLS SEED [OUTPUT BYTES]...
//
// The image is that of run_image.cpp. Each rank makes its CALLS one after the other, whatever the others do, and compares
// its output (its address and size follow, a pair a rank) with that of its first call; the delays of a call come from
// (SEED + call, rank). With an even SEED ranks remember credit and fence before they sleep, as those of a communicator do (a
// kernel without membarrier aside). Where slots have several spots, calls take turns in using all of them or fewer, for larger chunks, and in
// what they store past the caches. Exit 0: all calls ended and agree; 3: a wait ran out; 4: an output differs, or keeps what was there.
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "host/run.h"

using namespace blinkcoll;

constexpr u64 kBase = 0x7ea000000000ull;

static thread_local u64 state = 0;

// Mostly nothing; else a moment, a turn for the others, or long enough for them to fall asleep.
void bc_delay() {
  if (!state) return;
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  const u64 drawn = state >> 20;
  if (drawn % 8 == 0) {
    for (u64 i = drawn >> 8 & 1023; i; i--) __asm__ __volatile__("" ::: "memory");
  } else if (drawn % 61 == 0) {
    sched_yield();
  } else if (drawn % 1021 == 0) {
    usleep(200);
  }
}

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const int fd = open(argv[1], O_RDWR);
  struct stat info;
  if (fd < 0 || fstat(fd, &info) != 0) return 2;
  void* at = mmap(reinterpret_cast<void*>(kBase), size_t(info.st_size), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
  if (at != reinterpret_cast<void*>(kBase)) return 2;
  const u32 nranks = u32(std::atoi(argv[2])), calls = u32(std::atoi(argv[3]));
  const u64 seed = std::strtoull(argv[4], nullptr, 10);
  if (argc != int(5 + 2 * nranks)) return 2;
  const Launch* first = static_cast<const Launch*>(at);
  const bool as_communicators = seed % 2 == 0 && join_fences();
  std::atomic<int> outcome{0};
  std::vector<std::thread> threads;
  for (u32 r = 0; r < nranks; r++) {
    char* const output = reinterpret_cast<char*>(std::strtoull(argv[5 + 2 * r], nullptr, 10));
    const size_t nbytes = std::strtoull(argv[6 + 2 * r], nullptr, 10);
    threads.emplace_back([&, r, output, nbytes] {
      Launch launch = first[r];
      std::vector<u64> credit(ProgramView{reinterpret_cast<const char*>(launch.program)}.header().nconnections);
      Around around;
      around.crowded = true;
      around.fenced = as_communicators;
      around.credit = as_communicators ? credit.data() : nullptr;
      std::string expected;
      for (u32 call = 0; call < calls && outcome == 0; call++) {
        state = (seed + call) * 0x9e3779b97f4a7c15ull + r * 0xd1b54a32d192ed03ull + 1;
        if (call) std::memset(output, 0xA5, nbytes);
        launch.epoch = call + 1;
        if (const u64 spots = first[r].spots; spots > 1) {
          launch.spots = 1 + call % spots;
          launch.chunk_bytes = first[r].chunk_bytes * (spots / launch.spots);
          around.stores = Stores(call % kBySize);
        }
        if (!run_checked(launch, around)) outcome = 3;
        if (call == 0) expected.assign(output, nbytes);
        if (std::memcmp(expected.data(), output, nbytes) != 0) {
          std::fprintf(stderr, "rank %u, call %u (seed %llu): another result than in the first call\n", r, call, seed + call);
          outcome = 4;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return outcome;
}
