// A program as the verifier sees it: the IR's content and nothing of how it was made or how it will be encoded.
#pragma once

#include <string>
#include <vector>

namespace blinkcoll::verifier {

enum class Op { kNop, kCopy, kReduce, kExchange, kUnknown };
enum class Buffer { kInput, kOutput, kScratch, kSlot, kMulticast, kUnknown };

constexpr int kOwn = -1;   // an operand of the executing rank
constexpr int kNone = -1;  // no connection, no root

struct Operand {
  Buffer buffer;
  int connection;  // kNone where it is no slot
  int rank;        // kOwn, or the rank whose buffer it is
  bool prescaled;  // multiplied by the caller's factor while it is read
  Buffer region;   // of kMulticast: which buffer of all ranks; kUnknown elsewhere
  int shard = kNone;  // of a rank's buffer: where it is another than the step's
};

struct After {
  int channel, step, lag;
};

struct Step {
  Op op;
  int share, shard;
  bool postscaled;  // divided by the caller's divisor before it is stored
  std::vector<Operand> srcs, dsts;
  std::vector<int> wait, signal;
  std::vector<After> after;
  std::vector<int> group;  // kExchange: the ranks that take part, in the order of the sum
};

struct Connection {
  int src, dst, slots;
  bool lines;  // a protocol whose data is its own news (LL): an arrival orders what is computed from it, and nothing else
};

using Channel = std::vector<Step>;

struct Program {
  std::string collective;
  int root, nshards;
  bool in_place;  // whether it claims to be right where input and output are the same memory
  std::vector<long long> weights;
  std::vector<Connection> connections;
  int collective_ranks = 0;                 // executors from there on are relays: they have neither input nor output
  std::vector<std::vector<Channel>> ranks;  // per executor

  int nranks() const { return collective_ranks; }
  int nexecutors() const { return int(ranks.size()); }
};

}  // namespace blinkcoll::verifier
