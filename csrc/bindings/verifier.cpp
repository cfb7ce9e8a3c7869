#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <vector>

#include "blinkcoll/partition.h"
#include "verifier/verify.h"

namespace nb = nanobind;

namespace blinkcoll {
namespace {

using verifier::Buffer;
using verifier::Op;

int number_or_none(nb::handle value) { return value.is_none() ? verifier::kNone : nb::cast<int>(value); }

std::vector<int> numbers(nb::handle values) {
  std::vector<int> made;
  for (nb::handle value : values) made.push_back(nb::cast<int>(value));
  return made;
}

Op op_of(const char* name) {
  const std::string text(name);
  return text == "nop" ? Op::kNop : text == "copy" ? Op::kCopy : text == "reduce" ? Op::kReduce : text == "exchange" ? Op::kExchange : Op::kUnknown;
}

Buffer buffer_of(const char* name) {
  const std::string text(name);
  return text == "slot" ? Buffer::kSlot : text == "input" ? Buffer::kInput : text == "output" ? Buffer::kOutput : text == "scratch" ? Buffer::kScratch : text == "multicast" ? Buffer::kMulticast : Buffer::kUnknown;
}

std::vector<verifier::Operand> operands(nb::handle listed) {
  std::vector<verifier::Operand> made;
  for (nb::handle o : listed) {
    const nb::object region = o.attr("region");
    made.push_back({buffer_of(nb::cast<const char*>(o.attr("buffer"))), number_or_none(o.attr("connection")), number_or_none(o.attr("rank")), nb::cast<bool>(o.attr("prescaled")),
                    region.is_none() ? Buffer::kUnknown : buffer_of(nb::cast<const char*>(region)), number_or_none(o.attr("shard"))});
  }
  return made;
}

verifier::Step step_from(nb::handle s) {
  verifier::Step step{op_of(nb::cast<const char*>(s.attr("op"))), nb::cast<int>(s.attr("share")), nb::cast<int>(s.attr("shard")), nb::cast<bool>(s.attr("postscaled")),
                      operands(s.attr("srcs")), operands(s.attr("dsts")), numbers(s.attr("wait")), numbers(s.attr("signal")), {}, numbers(s.attr("group"))};
  for (nb::handle a : s.attr("after")) step.after.push_back({nb::cast<int>(a.attr("channel")), nb::cast<int>(a.attr("step")), nb::cast<int>(a.attr("lag"))});
  return step;
}

verifier::Program program_from(nb::handle p) {
  verifier::Program program;
  program.collective = nb::cast<std::string>(p.attr("collective"));
  program.root = number_or_none(p.attr("root"));
  program.nshards = nb::cast<int>(p.attr("nshards"));
  program.in_place = nb::cast<bool>(p.attr("in_place"));
  program.collective_ranks = nb::cast<int>(p.attr("nranks"));
  for (nb::handle w : p.attr("weights")) program.weights.push_back(nb::cast<long long>(w));
  // What carries nothing only signals: by a counter, whatever the protocol is called.
  const nb::frozenset carrying = nb::cast<nb::frozenset>(p.attr("carrying"));
  for (nb::handle c : p.attr("connections")) {
    const bool carries = carrying.contains(nb::int_(program.connections.size()));
    program.connections.push_back({nb::cast<int>(c.attr("src")), nb::cast<int>(c.attr("dst")), nb::cast<int>(c.attr("slots")), carries && nb::cast<std::string>(c.attr("protocol")) != "simple"});
  }
  for (nb::handle channels : p.attr("ranks")) {
    auto& rank = program.ranks.emplace_back();
    for (nb::handle channel : channels) {
      auto& steps = rank.emplace_back();
      for (nb::handle s : channel.attr("steps")) steps.push_back(step_from(s));
    }
  }
  return program;
}

// The ranges that executors use, handed to the verifier as data.
void check_partition(u32 nshards, const std::vector<u32>& weights, bool equal_shards, u64 count, u32 elem_size, u64 chunk_bytes) {
  std::vector<u32> cumulative{0};
  for (u32 weight : weights) cumulative.push_back(cumulative.back() + weight);
  const Partition partition{count, chunk_bytes, elem_size, nshards, u32(weights.size()), u32(equal_shards), cumulative.data(), nullptr, nullptr};
  std::vector<std::pair<unsigned long long, unsigned long long>> ranges;
  for (u32 share = 0; share < partition.nshares; share++) {
    const u64 iterations = partition.iterations(share);
    for (u32 shard = 0; shard < partition.nshards; shard++) {
      for (u64 i = 0; i < iterations; i++) {
        const Range r = partition.chunk_range(shard, share, i);
        if (r.length > partition.chunk_elements()) throw verifier::Refused("partition: a chunk of " + std::to_string(count) + " elements does not fit a slot");
        ranges.push_back({r.offset, r.offset + r.length});
      }
    }
  }
  verifier::check_cover(std::move(ranges), count);
}

}  // namespace

void bind_verifier(nb::module_& m) {
  m.def("verify_program", [](nb::object made, bool repeated) -> std::string {
    const verifier::Program program = program_from(made);
    nb::gil_scoped_release unlocked;
    try {
      verifier::verify(program, repeated);
    } catch (const verifier::Refused& refused) {
      return refused.what();
    }
    return "";
  }, nb::arg("program"), nb::arg("repeated"), "What is wrong with a program, as text; empty where nothing is.");
  m.def("verify_partition", [](u32 nshards, const std::vector<u32>& weights, bool equal_shards, u64 count, u32 elem_size, u64 chunk_bytes) -> std::string {
    try {
      check_partition(nshards, weights, equal_shards, count, elem_size, chunk_bytes);
    } catch (const verifier::Refused& refused) {
      return refused.what();
    }
    return "";
  }, nb::arg("nshards"), nb::arg("weights"), nb::arg("equal_shards"), nb::arg("count"), nb::arg("elem_size"), nb::arg("chunk_bytes"), "What is wrong with the ranges of the chunks of a buffer cut so; empty where nothing is.");
}

}  // namespace blinkcoll
