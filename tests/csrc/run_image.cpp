// Runs all ranks of a prepared memory image, built with sanitizers: the host executor, or the kernel's own source.
//
//   run_image IMAGE NRANKS THREADS_PER_BLOCK
//
// IMAGE is mapped at the address its launch records were written for; it starts with NRANKS of them. Exit 0: all ranks
// ran to their end; 3: a wait ran out. A sanitizer's finding ends the process otherwise.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#ifdef KERNEL_ON_HOST
#include "host_shim.h"
//
#define BC_MULTICAST
#include "cuda/run.cu"
#else
#include "host/run.h"
#endif

#include "blinkcoll/launch.h"
#include "blinkcoll/program.h"

using namespace blinkcoll;

// Inside every sanitizer's application memory on x86-64 Linux, and away from where the loader puts things.
constexpr u64 kBase = 0x7ea000000000ull;

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  int fd = open(argv[1], O_RDWR);
  struct stat info;
  if (fd < 0 || fstat(fd, &info) != 0) return 2;
  void* at = mmap(reinterpret_cast<void*>(kBase), size_t(info.st_size), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
  if (at != reinterpret_cast<void*>(kBase)) {
    std::perror("mmap");
    return 2;
  }
  unsigned nranks = unsigned(std::atoi(argv[2]));
  const Launch* first = static_cast<const Launch*>(at);
  std::vector<Launch> launches(first, first + nranks);
  bool ran = true;
#ifdef KERNEL_ON_HOST
  multimem_launch = launches[0];
  std::vector<std::thread> threads;
  std::vector<std::unique_ptr<BlockBarrier>> barriers;
  for (const Launch& launch : launches) {
    ProgramView view{reinterpret_cast<const char*>(launch.program)};
    launch_on_host(threads, barriers, view.rank(launch.rank).nchannels, unsigned(std::atoi(argv[3])), [launch] { blinkcoll_run(launch); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Launch& launch : launches) {
    ProgramView view{reinterpret_cast<const char*>(launch.program)};
    for (u32 c = 0; c < view.rank(launch.rank).nchannels; c++) ran = ran && reinterpret_cast<const ChannelRecord*>(launch.records)[c].code == kRan;
  }
#else
  for (bool rank : run_threads(launches)) ran = ran && rank;
#endif
  return ran ? 0 : 3;
}
