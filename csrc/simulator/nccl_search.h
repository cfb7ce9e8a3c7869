// NCCL's inner graph search on one server: given how fast a channel must be and how near its hops, find as many
// channels (rings, chains, NVLS heads) as the links carry. Rebuilt from src/graph/search.cc of NCCL 2.30.7 and 2.7.8;
// the order in which GPUs are tried, the number of steps after which the search gives up, and the single-precision
// arithmetic on link bandwidths are NCCL's, because all three decide what it finds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace blinkcoll::nccl {

using std::size_t;

// The numbers of NCCL_TOPO_PATTERN_* (src/include/graph.h).
enum Pattern { kBalancedTree = 1, kSplitTree = 2, kTree = 3, kRing = 4, kNvls = 5 };

// A hop's step over one link. `reverse` is the link back where the hop also costs bandwidth there (POWER CPUs), or -1.
struct PathStep {
  int link;
  int reverse;
  bool pcie;
};

// How one vertex reaches another: the kind of path (position in the version's list of kinds), its bandwidth in GB/s,
// and whether PCIe links on it carry the overhead of traffic between GPUs through an Intel CPU.
struct Path {
  int type = 0;
  float gb_s = 0;
  bool overhead = false;
  std::vector<PathStep> steps;
};

// What the search sees of the server. Vertices are the GPUs 0..ngpus-1 and, where `nvswitch`, one vertex more: all
// NVSwitches together. paths[a * nvertices + b] leads from a to b.
struct Machine {
  int ngpus = 0;
  bool nvswitch = false;
  std::vector<float> links;  // GB/s, one way
  std::vector<Path> paths;
  int nvertices() const { return ngpus + (nvswitch ? 1 : 0); }
};

// Where versions differ.
struct Rules {
  bool both_ways = true;           // a tree's hop must be near enough in both directions
  bool nvswitch_neighbours = true; // over NVSwitch only the next and previous GPU are tried
  bool same_pattern_hops = true;   // fewer hops win only within one pattern
  float overhead_mul = 6, overhead_div = 5;
};

// A graph as NCCL keeps it (struct ncclTopoGraph): the demands, and the channels found.
struct Graph {
  int pattern = kRing;
  int min_channels = 1, max_channels = 1;
  float bw_intra = 0, bw_inter = 0;
  int type_intra = 0;
  bool same_channels = true;
  int nchannels = 0;
  int nhops = 0;
  std::vector<int> order;  // order[channel * ngpus + position] = GPU
};

class Search {
 public:
  Search(Machine machine, Rules rules);

  // Look for channels that meet `trial`'s demands, starting from none, for at most `steps` steps; `best` is replaced
  // by every better graph met. Returns the steps left, 0 if it gave up, -1 if nothing better can exist.
  int run(Graph& trial, Graph& best, int steps);

 private:
  enum Order { kFree, kPci, kReplay };

  const Path& path(int from, int to) const { return machine_.paths[size_t(from) * size_t(machine_.nvertices()) + size_t(to)]; }
  int debit(const Path& path, int nsteps, float gb_s);
  bool take(int from, int to, float times);
  void give_back(int from, int to, float times);
  bool better() const;
  void next_gpus(int gpu, std::vector<int>& next) const;
  int replayed(int position) const { return trial_->order[size_t(trial_->nchannels - 1) * size_t(machine_.ngpus) + size_t(position)]; }

  void start_channel();
  void start_at(int gpu, Order order);
  void hop(int from, int to, int position, Order order);
  void visit(int gpu, int position, Order order);
  void close_ring(int gpu);
  void finish_channel();
  void pull_from_switch(int head);

  Machine machine_;
  Rules rules_;
  std::vector<uint64_t> used_;  // bit c of used_[gpu]: the GPU is in channel c already
  Graph* trial_ = nullptr;
  Graph* best_ = nullptr;
  int left_ = 0;
};

}  // namespace blinkcoll::nccl
