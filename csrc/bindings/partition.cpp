#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "bindings/bounds.h"
#include "blinkcoll/partition.h"

namespace nb = nanobind;

namespace blinkcoll {
namespace {

// A Partition that owns its weights.
class BoundPartition {
 public:
  BoundPartition(u64 count, u32 elem_size, u32 nshards, const std::vector<u32>& weights, u64 chunk_bytes, bool equal_shards, const std::vector<u64>& bounds)
      : cumulative_(weights.size() + 1, 0), bounds_(bounds) {
    if (elem_size == 0 || nshards == 0 || weights.empty()) throw std::invalid_argument("partition: elem_size, nshards and the number of weights must be positive");
    if (count > (u64(1) << 40)) throw std::invalid_argument("partition: count must be at most 2^40");
    u64 total = 0;
    for (size_t i = 0; i < weights.size(); i++) {
      total += weights[i];
      if (total >= (u64(1) << 31)) throw std::invalid_argument("partition: the weights' sum must be below 2^31");
      cumulative_[i + 1] = u32(total);
    }
    if (total == 0) throw std::invalid_argument("partition: the weights' sum must be positive");
    if (!bounds.empty()) check_bounds(bounds, nshards, count, equal_shards);
    else if (equal_shards && count % nshards) throw std::invalid_argument("partition: count must be a multiple of nshards where shards are equal");
    partition_ = {count, chunk_bytes, elem_size, nshards, u32(weights.size()), u32(equal_shards), cumulative_.data(), bounds.empty() ? nullptr : bounds_.data(), nullptr};
  }
  BoundPartition(const BoundPartition&) = delete;

  std::pair<u64, u64> chunk_range(u32 shard, u32 share, u64 iteration) const {
    check(shard, share);
    Range r = partition_.chunk_range(shard, share, iteration);
    return {r.offset, r.length};
  }
  std::pair<u64, u64> share_range(u32 shard, u32 share) const {
    check(shard, share);
    Range r = partition_.share_range(shard, share);
    return {r.offset, r.length};
  }
  u64 iterations(u32 share) const {
    check(0, share);
    return partition_.iterations(share);
  }
  u64 chunk_elements() const { return partition_.chunk_elements(); }

 private:
  void check(u32 shard, u32 share) const {
    if (shard >= partition_.nshards || share >= partition_.nshares) throw nb::index_error("partition: no such shard or share");
  }
  std::vector<u32> cumulative_;
  std::vector<u64> bounds_;
  Partition partition_;
};

}  // namespace

void bind_partition(nb::module_& m) {
  nb::class_<BoundPartition>(m, "Partition", "Which elements a (shard, share, iteration) means.")
      .def(nb::init<u64, u32, u32, const std::vector<u32>&, u64, bool, const std::vector<u64>&>(), nb::arg("count"), nb::arg("elem_size"), nb::arg("nshards"), nb::arg("weights"), nb::arg("chunk_bytes"), nb::arg("equal_shards") = false, nb::arg("bounds") = std::vector<u64>())
      .def("chunk_range", &BoundPartition::chunk_range, nb::arg("shard"), nb::arg("share"), nb::arg("iteration"), "(offset, length) in elements")
      .def("share_range", &BoundPartition::share_range, nb::arg("shard"), nb::arg("share"), "(offset, length) in elements")
      .def("iterations", &BoundPartition::iterations, nb::arg("share"), "iterations of the chunk loop for a share")
      .def_prop_ro("chunk_elements", &BoundPartition::chunk_elements);
}

}  // namespace blinkcoll
