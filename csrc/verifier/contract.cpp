#include "contract.h"

#include <map>

#include "verify.h"

namespace blinkcoll::verifier {

Contract::Kind Contract::kind_of(const std::string& collective) {
  static const std::map<std::string, Kind> kinds = {
      {"broadcast", Kind::kBroadcast}, {"reduce", Kind::kReduce}, {"allreduce", Kind::kAllReduce},
      {"allgather", Kind::kAllGather}, {"reducescatter", Kind::kReduceScatter}, {"gather", Kind::kGather},
      {"scatter", Kind::kScatter}, {"alltoall", Kind::kAllToAll}, {"alltoallv", Kind::kAllToAllV}, {"barrier", Kind::kBarrier}, {"sendrecv", Kind::kSendRecv}};
  auto found = kinds.find(collective);
  if (found == kinds.end()) throw Refused("the verifier does not know what " + collective + " promises");
  return found->second;
}

Contract::Contract(const Program& program) : kind_(kind_of(program.collective)), root_(program.root), nranks_(program.nranks()) {
  const int n = program.nranks();
  if (n < 1 || program.nexecutors() < n) throw Refused("the program is for " + std::to_string(n) + " ranks and has channels for " + std::to_string(program.nexecutors()));
  const std::string last = std::to_string(n - 1);
  const bool sharded = kind_ == Kind::kAllGather || kind_ == Kind::kReduceScatter || kind_ == Kind::kGather || kind_ == Kind::kScatter || kind_ == Kind::kAllToAll;
  bool rooted = kind_ == Kind::kBroadcast || kind_ == Kind::kReduce || kind_ == Kind::kGather || kind_ == Kind::kScatter || kind_ == Kind::kSendRecv;
  if (rooted && (root_ < 0 || root_ >= n))
    throw Refused(program.collective + " needs a root among ranks 0.." + last + ", got " + (root_ == kNone ? "None" : std::to_string(root_)));
  if (!rooted && root_ != kNone) throw Refused(program.collective + " has no root, got " + std::to_string(root_));
  if (kind_ == Kind::kAllToAllV && program.nshards != n * n)
    throw Refused("alltoallv has a shard for each pair of " + std::to_string(n) + " ranks, the program has " + std::to_string(program.nshards));
  if (kind_ == Kind::kAllToAllV && program.in_place) throw Refused("alltoallv cannot be called in place: what a rank sends and what it gets differ in size");
  if (sharded && program.nshards != n)
    throw Refused(program.collective + " has a shard for each of " + std::to_string(n) + " ranks, the program has " + std::to_string(program.nshards));
  if (kind_ == Kind::kSendRecv && n != 2) throw Refused("sendrecv joins two ranks, the program has " + std::to_string(n));
  if (kind_ == Kind::kBarrier && (program.nshards != 1 || program.weights.size() != 1)) throw Refused("a barrier has one shard and one share");
}

View Contract::view(Buffer buffer, int rank) const {
  if (buffer == Buffer::kScratch) return View::kWhole;
  if (rank >= nranks_) return View::kNothing;  // a relay
  const bool input = buffer == Buffer::kInput, at_root = rank == root_;
  switch (kind_) {
    case Kind::kBroadcast: return input && !at_root ? View::kNothing : View::kWhole;
    case Kind::kReduce: return !input && !at_root ? View::kNothing : View::kWhole;
    case Kind::kAllReduce: case Kind::kAllToAll: return View::kWhole;
    case Kind::kAllGather: return input ? View::kOwnShard : View::kWhole;
    case Kind::kReduceScatter: return input ? View::kWhole : View::kOwnShard;
    case Kind::kGather: return input ? View::kOwnShard : at_root ? View::kWhole : View::kNothing;
    case Kind::kScatter: return !input ? View::kOwnShard : at_root ? View::kWhole : View::kNothing;
    case Kind::kAllToAllV: return input ? View::kRow : View::kColumn;
    case Kind::kSendRecv: return input == at_root ? View::kWhole : View::kNothing;
    case Kind::kBarrier: break;
  }
  return View::kNothing;
}

bool Contract::holds(View view, int rank, int shard) const {
  switch (view) {
    case View::kNothing: return false;
    case View::kOwnShard: return shard == rank;
    case View::kRow: return shard / nranks_ == rank;
    case View::kColumn: return shard % nranks_ == rank;
    case View::kWhole: break;
  }
  return true;
}

Promise Contract::promise(int rank, int shard) const {
  if (!holds(view(Buffer::kOutput, rank), rank, shard)) return {Promise::Kind::kNothing, 0, 0};
  switch (kind_) {
    case Kind::kReduce: case Kind::kAllReduce: case Kind::kReduceScatter: return {Promise::Kind::kSum, 0, shard};
    case Kind::kAllGather: case Kind::kGather: return {Promise::Kind::kCopy, shard, shard};
    case Kind::kAllToAll: return {Promise::Kind::kCopy, shard, rank};
    case Kind::kAllToAllV: return {Promise::Kind::kCopy, shard / nranks_, shard};
    default: return {Promise::Kind::kCopy, root_, shard};
  }
}

}  // namespace blinkcoll::verifier
