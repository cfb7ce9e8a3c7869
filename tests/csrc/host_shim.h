// Just enough of CUDA's language on the host to build run.cu there, for sanitizers: a block's threads are real threads
// and its barriers are real barriers. Included before run.cu by run_image.cpp.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "blinkcoll/launch.h"
#include "blinkcoll/program.h"

#define __global__

namespace blinkcoll {

// __syncthreads and __syncthreads_and for `n` threads.
class BlockBarrier {
 public:
  explicit BlockBarrier(unsigned n) : n_(n) {}

  bool wait(bool mine) {
    std::unique_lock<std::mutex> lock(mutex_);
    all_ = all_ && mine;
    if (++arrived_ == n_) {
      result_ = all_;
      all_ = true;
      arrived_ = 0;
      generation_++;
      changed_.notify_all();
      return result_;
    }
    unsigned long generation = generation_;
    changed_.wait(lock, [&] { return generation_ != generation; });
    return result_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  unsigned n_, arrived_ = 0;
  unsigned long generation_ = 0;
  bool all_ = true, result_ = true;
};

inline thread_local BlockBarrier* block_barrier = nullptr;
inline thread_local BlockBarrier* team_barrier = nullptr;  // of eight neighbouring lanes (cuda/whole_lines.h)
inline bool host_team_all(bool mine) { return team_barrier->wait(mine); }

struct Index {
  unsigned x = 0;
};

// What a multicast mapping stands for: addresses from launch.multicast on are no memory of anybody's; rank r's bytes are
// those of its own buffer at the same distance.
inline Launch multimem_launch{};  // any rank's: all have the same mapping here
inline unsigned host_multimem_ranks() { return reinterpret_cast<const ProgramHeader*>(multimem_launch.program)->nranks; }
inline char* host_multimem_peer(unsigned long long at, unsigned rank) {
  const BufferAddresses* buffers = reinterpret_cast<const BufferAddresses*>(multimem_launch.buffers);
  for (unsigned region = 0; region < 3; region++) {
    const unsigned long long from = multimem_launch.multicast[region];
    if (from && at >= from && at - from < 1ull << 32) return reinterpret_cast<char*>(buffers[rank].buffer[region] + (at - from));
  }
  std::abort();
}

inline void host_relax() { std::this_thread::yield(); }

inline unsigned long long host_now_ns() {
  auto now = std::chrono::steady_clock::now().time_since_epoch();
  return (unsigned long long)std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

}  // namespace blinkcoll

inline thread_local blinkcoll::Index threadIdx, blockIdx, blockDim;
inline void __syncthreads() { blinkcoll::block_barrier->wait(true); }
inline int __syncthreads_and(int mine) { return blinkcoll::block_barrier->wait(mine != 0); }

namespace blinkcoll {

// Starts grid x block threads that each run `kernel`, and appends them to `threads`.
inline void launch_on_host(std::vector<std::thread>& threads, std::vector<std::unique_ptr<BlockBarrier>>& barriers, unsigned grid, unsigned block, const std::function<void()>& kernel) {
  for (unsigned b = 0; b < grid; b++) {
    barriers.push_back(std::make_unique<BlockBarrier>(block));
    BlockBarrier* barrier = barriers.back().get();
    BlockBarrier* team = nullptr;
    for (unsigned t = 0; t < block; t++) {
      if (t % 8 == 0) {
        barriers.push_back(std::make_unique<BlockBarrier>(block - t < 8 ? block - t : 8));
        team = barriers.back().get();
      }
      threads.emplace_back([=] {
        block_barrier = barrier;
        team_barrier = team;
        blockIdx.x = b;
        threadIdx.x = t;
        blockDim.x = block;
        kernel();
      });
    }
  }
}

}  // namespace blinkcoll
