// What needs no execution: every name stands for something, each side of a connection is one channel, a channel and a
// connection carry one share.
#include <algorithm>
#include <map>

#include "verify.h"

namespace blinkcoll::verifier {
namespace {

constexpr size_t kMostOperands = 64;

class Structure {
 public:
  Structure(const Program& program, const Contract& contract) : program_(program), contract_(contract), owners_(program.connections.size()) {}

  void check() {
    check_partition_terms();
    for (size_t i = 0; i < program_.connections.size(); i++) check_connection(int(i));
    for (int rank = 0; rank < program_.nexecutors(); rank++)
      for (size_t c = 0; c < program_.ranks[size_t(rank)].size(); c++) check_channel(rank, int(c));
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const { throw Refused(name(rank_, channel_, step_) + ": " + what); }

  void check_partition_terms() const {
    long long total = 0;
    for (long long weight : program_.weights) {
      if (weight < 0) throw Refused("a share of weight " + std::to_string(weight) + " cannot be cut");
      total += weight;
    }
    if (total >= 1LL << 31) throw Refused("weights that add up to " + std::to_string(total) + " do not cut a buffer: expected less than 2^31");
    if (program_.nshards < 1 || total < 1) throw Refused("nshards " + std::to_string(program_.nshards) + " and weights that add up to " + std::to_string(total) + " do not cut a buffer");
  }

  void check_connection(int i) const {
    const Connection& c = program_.connections[size_t(i)];
    const int n = program_.nexecutors();
    const bool joins = c.src != c.dst && c.src >= 0 && c.dst >= 0 && c.src < n && c.dst < n;
    if (joins && c.slots >= 1) return;
    const std::string what = "connection c" + std::to_string(i) + " " + std::to_string(c.src) + "→" + std::to_string(c.dst);
    if (!joins) throw Refused(what + ": must join two different ranks of 0.." + std::to_string(n - 1));
    throw Refused(what + ": has " + std::to_string(c.slots) + " slots, needs at least 1");
  }

  void check_channel(int rank, int channel) {
    const Channel& steps = program_.ranks[size_t(rank)][size_t(channel)];
    for (size_t s = 0; s < steps.size(); s++) {
      rank_ = rank, channel_ = channel, step_ = int(s);
      const Step& step = steps[s];
      if (step.share < 0 || step.share >= int(program_.weights.size()) || step.shard < 0 || step.shard >= program_.nshards)
        refuse("there is no shard " + std::to_string(step.shard) + ", share " + std::to_string(step.share));
      if (step.share != steps[0].share) refuse("a channel carries one share, this one share " + std::to_string(steps[0].share) + ", this step share " + std::to_string(step.share));
      check_shape(step);
      check_group(step, rank);
      for (const std::vector<int>* listed : {&step.wait, &step.signal}) check_listed(*listed, rank, listed == &step.wait ? "wait" : "signal");
      for (const Operand& o : step.srcs) check_operand(o, rank, step, true);
      for (const Operand& o : step.dsts) check_operand(o, rank, step, false);
      check_owner(step, rank, channel);
      check_lines(step);
      check_after(step, rank);
    }
  }

  void check_shape(const Step& step) const {
    const size_t ns = step.srcs.size(), nd = step.dsts.size();
    static const std::map<Op, std::string> names = {{Op::kNop, "nop"}, {Op::kCopy, "copy"}, {Op::kReduce, "reduce"}, {Op::kExchange, "exchange"}};
    if (step.op == Op::kUnknown) refuse("an operation that is not known");
    const bool in_switch = std::any_of(step.srcs.begin(), step.srcs.end(), [](const Operand& o) { return o.buffer == Buffer::kMulticast; });
    if (in_switch && (step.op != Op::kReduce || ns != 1)) refuse("what a switch adds is the only source of a reduce, and a source of nothing else");
    if (std::count_if(step.dsts.begin(), step.dsts.end(), [](const Operand& o) { return o.buffer == Buffer::kMulticast; }) > 1) refuse("at most one destination of a step is of all ranks");
    bool fits = step.op == Op::kNop ? ns == 0 && nd == 0 : step.op == Op::kCopy ? ns == 1 && nd >= 1 : step.op == Op::kExchange ? ns <= 1 && ns + nd >= 1 : ns >= (in_switch ? 1 : 2) && nd >= 1;
    if (!fits || ns + nd > kMostOperands) refuse("a " + names.at(step.op) + " of " + std::to_string(ns) + " sources to " + std::to_string(nd) + " destinations");
    if (step.op == Op::kNop && step.postscaled) refuse("a nop has nothing to scale");
    if (!contract_.reduces()) {
      if (step.op == Op::kReduce) refuse("a reduce in a " + program_.collective);
      if (step.postscaled || std::any_of(step.srcs.begin(), step.srcs.end(), [](const Operand& o) { return o.prescaled; })) refuse("scaling in a " + program_.collective);
    }
    for (size_t i = 0; i < nd; i++) {
      if (step.dsts[i].prescaled) refuse("a destination cannot be prescaled");
    }
  }

  void check_group(const Step& step, int rank) const {
    if (step.op != Op::kExchange) {
      if (!step.group.empty()) refuse("a group in a step that is no exchange");
      return;
    }
    for (size_t i = 0; i < step.group.size(); i++) {
      if (step.group[i] < 0 || step.group[i] >= program_.nranks()) refuse("exchange: there is no rank " + std::to_string(step.group[i]));
      if (std::find(step.group.begin(), step.group.begin() + long(i), step.group[i]) != step.group.begin() + long(i)) refuse("exchange: its group lists rank " + std::to_string(step.group[i]) + " twice");
    }
    if (step.group.size() < 2 || std::find(step.group.begin(), step.group.end(), rank) == step.group.end()) refuse("exchange: its group must hold this rank and another");
    for (const std::vector<Operand>* operands : {&step.srcs, &step.dsts})
      for (const Operand& o : *operands)
        if (o.rank != kOwn && o.rank != rank) refuse("exchange: each member's operands are its own, this one lies at rank " + std::to_string(o.rank));
  }

  void check_listed(const std::vector<int>& listed, int rank, const char* as) const {
    for (size_t i = 0; i < listed.size(); i++) {
      check_end(listed[i], rank);
      if (std::find(listed.begin(), listed.begin() + long(i), listed[i]) != listed.begin() + long(i)) refuse(std::string("lists a connection twice under ") + as);
    }
  }

  void check_end(int connection, int rank) const {
    const bool known = connection >= 0 && connection < int(program_.connections.size());
    if (!known || (program_.connections[size_t(connection)].src != rank && program_.connections[size_t(connection)].dst != rank))
      refuse("c" + std::to_string(connection) + " does not end at rank " + std::to_string(rank));
  }

  void check_operand(const Operand& o, int rank, const Step& step, bool source) const {
    if (o.buffer == Buffer::kUnknown || (o.connection == kNone) != (o.buffer != Buffer::kSlot)) refuse("a malformed operand");
    if (o.shard != kNone) check_shard(o);
    if (o.buffer == Buffer::kSlot) {
      check_end(o.connection, rank);
      if (o.rank != kOwn) refuse("a malformed operand: a slot belongs to no rank");
      const Connection& c = program_.connections[size_t(o.connection)];
      if (rank == (source ? c.dst : c.src)) return;
      refuse((source ? "reads" : "writes") + (" a slot of c" + std::to_string(o.connection) + ", which rank " + std::to_string(rank)) + (source ? " writes" : " reads"));
    }
    if ((o.buffer == Buffer::kMulticast) != (o.region != Buffer::kUnknown)) refuse("a malformed operand");
    if (o.buffer == Buffer::kMulticast) return check_group(o, step, source);
    if (o.rank != kOwn && (o.rank < 0 || o.rank >= program_.nexecutors())) refuse("there is no rank " + std::to_string(o.rank));
    if (!source && o.buffer == Buffer::kInput) refuse("writes an input");
    const int owner = o.rank == kOwn ? rank : o.rank, shard = o.shard == kNone ? step.shard : o.shard;
    if (o.prescaled && owner != rank) refuse("scales an input of rank " + std::to_string(owner) + ", whose factor it does not know");
    const View view = contract_.view(o.buffer, owner);
    if (contract_.holds(view, owner, shard)) return;
    const std::string which = std::string(o.buffer == Buffer::kInput ? "input" : "output") + " of rank " + std::to_string(owner);
    if (view == View::kNothing) refuse(program_.collective + " has no " + which);
    refuse("names shard " + std::to_string(shard) + " of the " + which + ", which holds that rank's own shard" + (view == View::kOwnShard ? "" : "s") + " only");
  }

  // A chunk of one shard is as long as one of another only where all shards are of one size.
  void check_shard(const Operand& o) const {
    if (o.buffer == Buffer::kSlot || o.buffer == Buffer::kMulticast) refuse("a malformed operand: only a rank's buffer has a shard");
    if (o.shard < 0 || o.shard >= program_.nshards) refuse("there is no shard " + std::to_string(o.shard));
    if (!contract_.interchangeable()) refuse("an operand of shard " + std::to_string(o.shard) + " in a step of another: shards of " + program_.collective + " may differ in size");
  }

  // A place of all ranks: each of them has it, and it is no input where it is stored to.
  void check_group(const Operand& o, const Step& step, bool source) const {
    if (o.rank != kOwn || o.prescaled || o.region == Buffer::kSlot || o.region == Buffer::kMulticast) refuse("a malformed operand");
    for (int rank = 0; rank < program_.nranks(); rank++) check_operand({o.region, kNone, rank, false, Buffer::kUnknown}, rank, step, source);
  }

  void check_owner(const Step& step, int rank, int channel) {
    auto claim = [&](int connection) {
      Owners& owners = owners_[size_t(connection)];
      Claim& held = program_.connections[size_t(connection)].src == rank ? owners.writer : owners.reader;
      if (held.channel < 0) held = {channel, step_};
      if (held.channel != channel) refuse("c" + std::to_string(connection) + " is used by another channel of this rank too (" + name(rank, held.channel, held.step) + "); a side has one");
      if (owners.share < 0) owners.share = step.share;
      if (owners.share != step.share) refuse("c" + std::to_string(connection) + " carries share " + std::to_string(owners.share) + ", this step is of share " + std::to_string(step.share));
    };
    for (int c : step.wait) claim(c);
    for (int c : step.signal) claim(c);
    for (const std::vector<Operand>* operands : {&step.srcs, &step.dsts})
      for (const Operand& o : *operands)
        if (o.connection != kNone) claim(o.connection);
  }

  // A use of a connection in lines is one step on either side: its data is what the reader waits for, so there is no
  // wait without it, and what was stored cannot be held back until a later signal. Who moves lines moves them unit by unit
  // between memories of single ranks: neither an engine nor what goes through a multicast object can.
  void check_lines(const Step& step) const {
    std::map<int, int> operands;
    for (const std::vector<Operand>* listed : {&step.srcs, &step.dsts})
      for (const Operand& o : *listed)
        if (o.connection != kNone) operands[o.connection]++;
    auto lists = [](const std::vector<int>& listed, int c) { return std::find(listed.begin(), listed.end(), c) != listed.end(); };
    for (const std::vector<int>* touched : {&step.wait, &step.signal})
      for (int c : *touched) operands.try_emplace(c, 0);
    for (const auto& [c, times] : operands) {
      if (!program_.connections[size_t(c)].lines) continue;
      if (step.op == Op::kExchange) refuse("c" + std::to_string(c) + " is in lines, and an exchange moves whole chunks");
      if (of_all_ranks(step)) refuse("c" + std::to_string(c) + " is in lines, which go to or come from single ranks, not all at once");
      if (times != 1 || !lists(step.wait, c) || !lists(step.signal, c))
        refuse("c" + std::to_string(c) + " is in lines: a step that uses it waits for it, reads or writes its slot once, and signals it");
    }
  }

  static bool of_all_ranks(const Step& step) {
    auto is = [](const Operand& o) { return o.buffer == Buffer::kMulticast; };
    return std::any_of(step.srcs.begin(), step.srcs.end(), is) || std::any_of(step.dsts.begin(), step.dsts.end(), is);
  }

  void check_after(const Step& step, int rank) const {
    const auto& channels = program_.ranks[size_t(rank)];
    for (const After& a : step.after) {
      if (a.channel < 0 || a.channel >= int(channels.size()) || a.step < 0 || a.step >= int(channels[size_t(a.channel)].size()) || a.lag < 0)
        refuse("after names channel " + std::to_string(a.channel) + ", step " + std::to_string(a.step) + ", lag " + std::to_string(a.lag) + ": there is no such thing");
      if (channels[size_t(a.channel)][size_t(a.step)].share != step.share) refuse("after names channel " + std::to_string(a.channel) + ", which carries another share: their iterations are not the same");
    }
  }

  struct Claim {
    int channel = -1, step = -1;
  };
  struct Owners {
    Claim writer, reader;
    int share = -1;
  };
  const Program& program_;
  const Contract& contract_;
  int rank_ = 0, channel_ = 0, step_ = 0;  // where the check is
  std::vector<Owners> owners_;             // per connection
};

}  // namespace

void check_structure(const Program& program, const Contract& contract) { Structure(program, contract).check(); }

std::string name(int rank, int channel, int step) {
  return "rank " + std::to_string(rank) + ", channel " + std::to_string(channel) + ", step " + std::to_string(step);
}

}  // namespace blinkcoll::verifier
