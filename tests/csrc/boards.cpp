// Ranks on threads of one process make the same calls at their own pace, and look at each other's boards all the while: no
// difference may be seen, until one makes another call; then all must see it.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "host/board.h"

using namespace blinkcoll;

namespace {

constexpr u32 kRanks = 4;
constexpr u64 kCalls = 20000;

u64 word_of(u64 number) { return call_word(call_base(kAllReduce, -1), kFloat32, 4, kSum, 1, number * 7919 % 1000); }

u64 ended(const Boards& boards, u32 rank) { return __atomic_load_n(&boards.board(rank).ended, __ATOMIC_ACQUIRE); }

int check(bool good, const char* what) {
  if (!good) std::fprintf(stderr, "%s\n", what);
  return good ? 0 : 1;
}

}  // namespace

int main() {
  char* const memory = static_cast<char*>(std::aligned_alloc(kBoardBytes, (kRanks + 1) * kBoardBytes));
  for (u64 i = 0; i < (kRanks + 1) * kBoardBytes; i++) memory[i] = 0;
  std::vector<Boards> boards;
  for (u32 r = 0; r < kRanks; r++) boards.emplace_back(u64(memory), r, kRanks);
  std::vector<int> wrong(kRanks, 0);
  std::vector<std::thread> threads;
  for (u32 r = 0; r < kRanks; r++) {
    threads.emplace_back([&, r] {
      Boards& mine = boards[r];
      for (u64 i = 1; i <= kCalls; i++) {
        if (i % 5 == 0) mine.announce(announced_word(call_base(kAllReduce, -1)));
        if (i % 500 == 0) {  // what is only announced is seen, and is no difference
            std::this_thread::sleep_for(std::chrono::microseconds(200));
            wrong[r] += check(!mine.anyone_differs(), "an announced call differs");
        }
        wrong[r] += check(mine.begin(word_of(i)), "a call was refused");
        Boards::note(mine.mine().waits, {0, 0, r, r, i, i, i, i, i, 0, 0});
        wrong[r] += check(!mine.anyone_differs() && !mine.must_leave(), "a difference or a failure where there is none");
        mine.end();
        if (i % 50 == 0)  // nobody runs ahead for ever, but by more than the boards hold
          while (ended(mine, (r + 1) % kRanks) + 100 < i) std::this_thread::yield();
      }
      // One rank makes another call. All wait until all have come to it.
      const u64 last = kCalls + 1;
      Caller nobody;
      mine.begin(word_of(r == 2 ? last + 1 : last));
      wrong[r] += check(!mine.assemble(u64(20) * 1000000000, nobody), "all came and no difference was seen");
      wrong[r] += check(mine.verdict() == Verdict::kDiffers || mine.verdict() == Verdict::kFailed, "another verdict");
      mine.fail(1, last, "different calls", 15);
      wrong[r] += check(mine.must_leave() && mine.verdict() == Verdict::kFailed, "the failure is not seen");
    });
  }
  for (std::thread& thread : threads) thread.join();
  int all = 0;
  for (int w : wrong) all += w;
  // A rank that has gone harms calls that it has not ended, and no others.
  Boards& mine = boards[0];
  all += check(mine.board(1).ended == kCalls, "a call that failed was counted as ended");
  std::free(memory);
  return all != 0;
}
