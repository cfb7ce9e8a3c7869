// Other processes' memory, read and written where it lies (process_vm_readv(2); "cross memory attach").
//
// The kernel copies by ordinary loads and stores on the calling thread, so what a look() acquired is ordered before it and
// a publish() after it, as with any access of this thread's.
#pragma once

#include <cerrno>
#include <cstring>

#if defined(__linux__)
#include <sys/uio.h>
#include <unistd.h>
#endif

#include "blinkcoll/types.h"

namespace blinkcoll {

class Peers {
 public:
  // `processes`: of each rank, as this process numbers them; 0: the same process. Null: all are.
  explicit Peers(const int* processes) : processes_(processes) {}

  bool far(u32 rank) const { return processes_ && processes_[rank] != 0; }

  // False where it cannot be done: the process is gone, or will not have it; lost() and error() then say which, and why.
  bool read(u32 rank, char* to, const char* from, u64 nbytes) { return move(rank, to, const_cast<char*>(from), nbytes, false); }
  bool write(u32 rank, char* to, const char* from, u64 nbytes) { return move(rank, const_cast<char*>(from), to, nbytes, true); }

  u32 lost() const { return lost_; }
  int error() const { return error_; }

 private:
  bool move(u32 rank, char* mine, char* theirs, u64 nbytes, bool write) {
#if defined(__linux__)
    constexpr u64 kMost = u64(1) << 30;  // the kernel moves less than 2 GiB at once
    while (nbytes) {
      iovec here{mine, nbytes < kMost ? nbytes : kMost}, there{theirs, here.iov_len};
      const ssize_t moved = write ? process_vm_writev(processes_[rank], &here, 1, &there, 1, 0) : process_vm_readv(processes_[rank], &here, 1, &there, 1, 0);
      if (moved <= 0) {
        if (moved < 0 && errno == EINTR) continue;
        return fail(rank, moved < 0 ? errno : EFAULT);
      }
      mine += moved, theirs += moved, nbytes -= u64(moved);
    }
    return true;
#else
    (void)mine, (void)theirs, (void)nbytes, (void)write;
    return fail(rank, ENOSYS);
#endif
  }

  bool fail(u32 rank, int error) {
    lost_ = rank;
    error_ = error;
    return false;
  }

  const int* processes_;
  u32 lost_ = 0;
  int error_ = 0;
};

}  // namespace blinkcoll
