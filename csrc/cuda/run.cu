// The kernel: one block a channel, all threads of a block work on each step.
//
// grid.x is at least the rank's number of channels, block.x any number of threads. All blocks of a launch must be
// resident at once: a block may wait for another one of the same GPU (through other GPUs, or through `after`).
//
// Compiled once for each dtype and operation (BC_DTYPE, BC_OP: numbers of launch.h's enums): a kernel that holds all of
// them would be large, and as hungry for registers as the hungriest. BC_MULTICAST: for programs with operands of all ranks.
#include "blinkcoll/dispatch.h"
#include "cuda/memory.h"
#include "cuda/movers.h"
#ifdef BC_MULTICAST
#include "cuda/multimem.h"
#endif
#include "cuda/whole_lines.h"

#ifndef BC_DTYPE
#define BC_DTYPE kFloat32
#endif
#ifndef BC_OP
#define BC_OP kSum
#endif

namespace blinkcoll {

class CudaPlatform {
 public:
  BC_DEVICE explicit CudaPlatform(const Launch& launch) : launch_(launch) {}

  static constexpr bool kSigned = false;
  static constexpr bool kHeaded = false;
  static constexpr bool kSkewed = false;
  static constexpr bool kSpots = false;
  static constexpr bool kFar = false;  // peers' memory is mapped
  static constexpr bool kKeepsCredit = false;
  static constexpr bool kLines = true;

  BC_DEVICE u32 lane() const { return threadIdx.x; }
  BC_DEVICE u32 lanes() const { return blockDim.x; }
  BC_DEVICE bool all(bool mine) const { return __syncthreads_and(mine); }
  BC_DEVICE void barrier() const { __syncthreads(); }

  // Acquire at system scope: the writer is another GPU (or another block of this one, a special case of it); pairs with
  // publish().
  BC_DEVICE Look look(const u64* word, u64 target) const {
    return wait([=] { return reached_acquire_system(word, target); }) ? Look::kReached : Look::kGaveUp;
  }

  // Spins until `reached`; false where the rank was told to leave, or the time is up. The clock and the abort word are
  // looked at now and then only, they cost a trip to memory.
  template <class Reached>
  BC_DEVICE bool wait(const Reached& reached) const {
    return wait_together(reached, [](bool mine) { return mine; });
  }

  // The same for lanes that only `reached` and `all` ask together: they give up together, too.
  template <class Reached, class All>
  BC_DEVICE bool wait_together(const Reached& reached, const All& all) const {
    u64 deadline = 0;
    for (u32 spins = 0;; spins++) {
      if (reached()) return true;
      relax();
      if (spins % 64 != 63) continue;
      u64 now = now_ns();
      if (deadline == 0) deadline = now + launch_.timeout_ns;
      if (!all(now <= deadline && !aborted())) return false;
    }
  }

  BC_DEVICE u64 peek(const u64* word) const { return load_relaxed_system(word); }

  // Relaxed: a flag that only says "leave"; the host may set it too, hence system scope.
  BC_DEVICE bool aborted() const { return load_relaxed_system(pointer<const u32>(launch_.abort)) != 0; }
  BC_DEVICE void abort() const { store_relaxed_system(pointer<u32>(launch_.abort), 1); }

  // Release at system scope, after barrier(): cumulativity makes it cover what all threads of the block read and wrote.
  BC_DEVICE void publish(u64* word, u64 value) const { store_release_system(word, value); }
  BC_DEVICE void publish_local(u64* word, u64 value) const { store_release_gpu(word, value); }

  BC_DEVICE void copy(char* const* dsts, u32 ndsts, const char* src, u64 nbytes) const {
    copy_block(dsts, ndsts, src, nbytes, lane(), lanes());
  }
  // The launcher has chosen a kernel of the launch's dtype and operation.
  BC_DEVICE void reduce(char* const* dsts, u32 ndsts, char* const* srcs, u32 nsrcs, u64 count, const Scaling& scaling) const {
    reduce_any<BC_DTYPE, BC_OP>(dsts, ndsts, srcs, nsrcs, count, scaling, lane(), lanes());
  }
  BC_DEVICE void move_group(const GroupStep& step) const {
#ifdef BC_MULTICAST
    move_group_block<BC_DTYPE, BC_OP>(step, lane(), lanes());
#else
    asm volatile("trap;");  // a kernel for programs that have no such step
#endif
  }

  BC_DEVICE bool copy_lines(const Place* dsts, u32 ndsts, const Place& src, u64 nbytes) const {
    return move_in_lines<CopiedUnit>({dsts, &src, ndsts, 1, nbytes, launch_.slot_bytes, {0, false, 1, 1}}, lane(), lanes(), *this);
  }
  BC_DEVICE bool reduce_lines(const Place* dsts, u32 ndsts, const Place* srcs, u32 nsrcs, u64 count, const Scaling& scaling) const {
    const u64 nbytes = count * sizeof(Element<BC_DTYPE>::Stored);
    return move_in_lines<ReducedUnit<BC_DTYPE, BC_OP>>({dsts, srcs, ndsts, nsrcs, nbytes, launch_.slot_bytes, scaling}, lane(), lanes(), *this);
  }
  BC_DEVICE bool has_lines(const Place& slot, u64 units) const { return all_lines_flagged(slot, units); }

 private:
  const Launch& launch_;
};

}  // namespace blinkcoll

extern "C" __global__ void blinkcoll_run(const blinkcoll::Launch launch) {
  using namespace blinkcoll;
  ProgramView view{pointer<const char>(launch.program)};
  if (blockIdx.x >= view.rank(launch.rank).nchannels) return;
  CudaPlatform platform(launch);
  ChannelRun<CudaPlatform> channel(launch, blockIdx.x);
  Outcome outcome;
  do {
    outcome = channel.advance(platform);
  } while (outcome == Outcome::kProgress);
  // The block's siblings would wait in vain: let them leave with a note of their own.
  if (outcome == Outcome::kFailed && threadIdx.x == 0) platform.abort();
}
