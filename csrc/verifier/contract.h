// What each collective promises: which part of the data a rank's buffers hold, and what the outputs are at the end.
#pragma once

#include <string>

#include "ir.h"

namespace blinkcoll::verifier {

// What a rank's input or output holds: nothing (the caller need not pass one), the rank's own shard, all shards; or of n x n
// pieces, piece a * n + b from a to b, those that it sends (its row) or gets (its column).
enum class View { kNothing, kOwnShard, kWhole, kRow, kColumn };

// What an output's shard must be at the end.
struct Promise {
  enum class Kind { kNothing, kCopy, kSum } kind;
  int rank, shard;  // kCopy: of whose input, and which shard of it; kSum: the shard, of every rank's input once
};

class Contract {
 public:
  // Throws Refused where there is no such collective, or the program's root or shards do not suit it.
  explicit Contract(const Program& program);

  View view(Buffer buffer, int rank) const;
  // Whether what a rank's buffer is seen as holds this shard.
  bool holds(View view, int rank, int shard) const;
  Promise promise(int rank, int shard) const;
  // Whether all shards have the same size whatever the launch, so that a chunk may be passed on as one of another.
  bool interchangeable() const { return kind_ == Kind::kAllToAll; }
  bool reduces() const { return kind_ == Kind::kReduce || kind_ == Kind::kAllReduce || kind_ == Kind::kReduceScatter; }
  bool barrier() const { return kind_ == Kind::kBarrier; }

 private:
  enum class Kind { kBroadcast, kReduce, kAllReduce, kAllGather, kReduceScatter, kGather, kScatter, kAllToAll, kAllToAllV, kBarrier, kSendRecv };
  static Kind kind_of(const std::string& collective);

  Kind kind_;
  int root_, nranks_;
};

}  // namespace blinkcoll::verifier
