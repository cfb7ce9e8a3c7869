// One iteration of a share, executed on expressions: what each place holds, and whether accesses to it are ordered.
//
// An iteration touches its own chunk of each buffer only, and of a connection the uses it has itself waited for; so what
// holds for one iteration holds for each, and two iterations meet nowhere but in the slots, which credit keeps apart.
#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "expressions.h"
#include "verify.h"

namespace blinkcoll::verifier {
namespace {

// A buffer's chunk of a shard, or a use of a connection. In place, a rank's input and output are one place.
struct Place {
  enum Kind { kInput, kOutput, kScratch, kSlot } kind;
  int owner, shard;  // kSlot: connection and use
  bool operator==(const Place& other) const { return kind == other.kind && owner == other.owner && shard == other.shard; }
};

struct Spread {
  size_t operator()(const Place& place) const { return (size_t(place.owner) << 34 ^ size_t(place.shard) << 2 ^ size_t(place.kind)) * 0x9e3779b97f4a7c15u >> 20; }
};

struct Content {
  int value = -1;   // -1: nothing was ever written
  int writer = -1;  // an event, -1: there from the start
  int shard = 0;    // of the chunk that a slot was filled with
  std::vector<int> readers;
};

struct Access {
  int event;
  bool writes;
};

class Execution {
 public:
  Execution(const Program& program, const Contract& contract, int share, const Dependence& dependence, bool in_place, bool repeated)
      : program_(program), contract_(contract), dependence_(dependence), share_(share), in_place_(in_place), repeated_(repeated) {
    sources_.resize(dependence.events.size());
    for (const auto& channels : program.ranks)
      for (const Channel& channel : channels)
        for (const Step& step : channel) {
          postscaled_ = postscaled_ || step.postscaled;
          for (const Operand& o : step.srcs) prescaled_ = prescaled_ || o.prescaled;
        }
    postscaled_ = postscaled_ || prescaled_;
  }

  void run() {
    for (int event : dependence_.order) step(event);
    check_promise();
    if (repeated_) check_next_call();
  }

 private:
  [[noreturn]] void refuse(int event, const std::string& what) const { throw Refused(name(dependence_.events[size_t(event)]) + ": " + what + (in_place_ ? " (called in place)" : "")); }

  void step(int event) {
    const Event& e = dependence_.events[size_t(event)];
    const Step& step = *e.step;
    if (step.op == Op::kNop) return;
    if (step.op == Op::kExchange) return exchange(event);
    std::vector<int> values;
    bool in_switch = false;  // the only source then
    for (const Operand& listed : step.srcs) {
      in_switch = listed.buffer == Buffer::kMulticast;
      for (const Operand& o : each(listed)) {
        int value = read(event, locate(e, o));
        values.push_back(o.prescaled ? expressions_.prescaled(value) : value);
        touch(event, o, false);
      }
    }
    int value = step.op == Op::kCopy ? values[0] : in_switch ? expressions_.switched(event, values) : expressions_.sum(values);
    if (step.postscaled) value = expressions_.postscaled(value);
    store(event, value);
  }

  // When the first member's turn comes, all that any member waits for has run and nothing that waits for a member has.
  void exchange(int event) {
    const int number = dependence_.events[size_t(event)].exchange;
    auto [found, fresh] = exchanged_.try_emplace(number, -1);
    if (fresh) {
      std::vector<int> values;
      for (int member : dependence_.exchanges[size_t(number)]) {
        const Event& e = dependence_.events[size_t(member)];
        for (const Operand& o : e.step->srcs) {
          const int value = read(member, locate(e, o));
          values.push_back(o.prescaled ? expressions_.prescaled(value) : value);
          touch(member, o, false);
        }
      }
      found->second = values.size() == 1 ? values[0] : expressions_.sum(values);
    }
    const int value = found->second;
    store(event, dependence_.events[size_t(event)].step->postscaled ? expressions_.postscaled(value) : value);
  }

  void store(int event, int value) {
    const Event& e = dependence_.events[size_t(event)];
    const Step& step = *e.step;
    std::vector<Place> written;
    std::vector<Operand> dsts;
    for (const Operand& listed : step.dsts)
      for (const Operand& o : each(listed)) dsts.push_back(o);
    for (const Operand& o : dsts) {
      const Place place = locate(e, o);
      if (std::find(written.begin(), written.end(), place) != written.end()) refuse(event, "writes one place twice");
      written.push_back(place);
      write(event, place, value);
      touch(event, o, true);
    }
  }

  void touch(int event, const Operand& o, bool writes) {
    const Event& e = dependence_.events[size_t(event)];
    if (o.buffer == Buffer::kScratch) {
      const Place place = locate(e, o);
      scratch_[{place.owner, place.shard}].push_back({event, writes});
    } else if (repeated_ && o.buffer != Buffer::kSlot && o.rank != kOwn && o.rank != e.rank) {
      check_lifetime(event, o.rank);
    }
  }

  // A place of all ranks is a place of each, in the order of ranks.
  std::vector<Operand> each(const Operand& o) const {
    if (o.buffer != Buffer::kMulticast) return {o};
    std::vector<Operand> all;
    for (int rank = 0; rank < program_.nranks(); rank++) all.push_back({o.region, kNone, rank, o.prescaled, Buffer::kUnknown});
    return all;
  }

  Place locate(const Event& e, const Operand& o) const {
    if (o.buffer == Buffer::kSlot) return {Place::kSlot, o.connection, e.use(o.connection)};
    const int owner = o.rank == kOwn ? e.rank : o.rank, shard = o.shard == kNone ? e.step->shard : o.shard;
    if (o.buffer == Buffer::kScratch) return {Place::kScratch, owner, shard};
    return {o.buffer == Buffer::kInput && !in_place_ ? Place::kInput : Place::kOutput, owner, shard};
  }

  Content& content(const Place& place) {
    auto [found, fresh] = memory_.try_emplace(place);
    const bool input = place.kind == Place::kInput || (in_place_ && place.kind == Place::kOutput);
    if (fresh && input && contract_.holds(contract_.view(Buffer::kInput, place.owner), place.owner, place.shard)) found->second.value = expressions_.input(place.owner, place.shard);
    return found->second;
  }

  int read(int event, const Place& place) {
    Content& held = content(place);
    if (held.value < 0) refuse(event, "reads " + words(place) + " before anything is written there");
    if (held.writer >= 0) {
      check_ordered(held.writer, event, place);
      sources_[size_t(event)].push_back(held.writer);
    }
    const int shard = dependence_.events[size_t(event)].step->shard;
    // A slot holds as many elements as its writer's chunk had, which is another number for another shard.
    if (place.kind == Place::kSlot && held.shard != shard && !contract_.interchangeable())
      refuse(event, "reads " + words(place) + " as a chunk of shard " + std::to_string(shard) + ", it was filled as one of shard " + std::to_string(held.shard));
    held.readers.push_back(event);
    return held.value;
  }

  void write(int event, const Place& place, int value) {
    Content& held = content(place);
    if (held.writer >= 0) check_ordered(held.writer, event, place);
    for (int reader : held.readers)
      if (!computed_from(reader, event)) check_ordered(reader, event, place);
    held.value = value;
    held.writer = event;
    held.shard = dependence_.events[size_t(event)].step->shard;
    held.readers.clear();
  }

  // Whether what the later step writes was computed from what the earlier one read, both by the movers of lines, which
  // load and store units by relaxed accesses: then a load is over before the store that depends on it.
  bool computed_from(int earlier, int later) const {
    if (!in_lines(earlier) || !in_lines(later)) return false;
    std::vector<int> open{later};
    std::set<int> seen;
    while (!open.empty()) {
      const int event = open.back();
      open.pop_back();
      if (event == earlier) return true;
      for (int source : sources_[size_t(event)])
        if (seen.insert(source).second) open.push_back(source);
    }
    return false;
  }

  bool in_lines(int event) const {
    const Step& step = *dependence_.events[size_t(event)].step;
    for (const std::vector<Operand>* listed : {&step.srcs, &step.dsts})
      for (const Operand& o : *listed)
        if (o.connection != kNone && program_.connections[size_t(o.connection)].lines) return true;
    return false;
  }

  void check_ordered(int earlier, int later, const Place& place) const {
    if (place.kind == Place::kSlot && program_.connections[size_t(place.owner)].lines) return;  // its flags order it
    if (earlier != later && !dependence_.ordered(earlier, later))
      refuse(later, "touches " + words(place) + ", and nothing orders it after (" + name(dependence_.events[size_t(earlier)]) + "), which does too");
  }

  // A rank's buffers are its own before its channels begin and after they end.
  void check_lifetime(int event, int owner) const {
    if (!dependence_.begun_before(owner, event)) refuse(event, "uses a buffer of rank " + std::to_string(owner) + ", and nothing says that this rank has begun");
    if (!dependence_.ends_after(owner, event)) refuse(event, "uses a buffer of rank " + std::to_string(owner) + ", which does not wait until that is over");
  }

  // Scratch outlives a call. What one call does there must be over before another rank does something else there in the
  // next call: some rank ends its call after the first and has begun its next one before the second.
  void check_next_call() const {
    for (const auto& [place, accesses] : scratch_) {
      for (const Access& first : accesses) {
        for (const Access& second : accesses) {
          const Event &a = dependence_.events[size_t(first.event)], &b = dependence_.events[size_t(second.event)];
          if (a.rank == b.rank || !(first.writes || second.writes)) continue;
          bool apart = false;
          for (int rank = 0; rank < program_.nexecutors() && !apart; rank++) apart = dependence_.ends_after(rank, first.event) && dependence_.begun_before(rank, second.event);
          if (!apart) refuse(second.event, "touches " + words({Place::kScratch, place.first, place.second}) + ", and nothing says that (" + name(a) + ") of the call before is done with it");
        }
      }
    }
  }

  // -- what remains -------------------------------------------------------------------------------------------------

  void check_promise() {
    if (contract_.barrier()) return check_barrier();
    for (int shard = 0; shard < program_.nshards; shard++) {
      int first = -1, first_rank = 0;  // all ranks that are promised a sum get the same expression
      for (int rank = 0; rank < program_.nranks(); rank++) {
        const Promise promise = contract_.promise(rank, shard);
        if (promise.kind == Promise::Kind::kNothing) continue;
        const std::string where = "output of rank " + std::to_string(rank) + " (shard " + std::to_string(shard) + ", share " + std::to_string(share_) + ", every chunk)" + (in_place_ ? " when called in place" : "");
        const Content& held = content({Place::kOutput, rank, shard});
        if (held.value < 0) throw Refused(where + " is never written");
        if (promise.kind == Promise::Kind::kCopy) {
          if (held.value != expressions_.input(promise.rank, promise.shard))
            throw Refused(where + " holds " + expressions_.describe(held.value) + ", expected " + expressions_.describe(expressions_.input(promise.rank, promise.shard)));
          continue;
        }
        if (!expressions_.is_sum_of_all(held.value, program_.nranks(), shard, prescaled_, postscaled_))
          throw Refused(where + " holds " + expressions_.describe(held.value) + ", expected " + program_.collective + "'s " + std::to_string(program_.nranks()) + " inputs once each" +
                        (prescaled_ ? ", each prescaled" : "") + (postscaled_ ? ", and the result postscaled" : ""));
        if (first < 0) {
          first = held.value;
          first_rank = rank;
        }
        if (held.value != first) throw Refused(where + " is summed in another order than on rank " + std::to_string(first_rank) + ": results would differ in their last bits");
      }
    }
  }

  // Nobody leaves before everybody has come.
  void check_barrier() const {
    for (int rank = 0; rank < program_.nranks(); rank++) {
      for (int other = 0; other < program_.nranks(); other++) {
        if (other == rank) continue;
        if (!waits(rank, other)) throw Refused("barrier: rank " + std::to_string(rank) + " may leave before rank " + std::to_string(other) + " has come");
      }
    }
  }

  // Whether a rank's call cannot end before another's has begun.
  bool waits(int rank, int other) const {
    for (int t = 0; t < dependence_.ntracks; t++)
      if (dependence_.rank_of_track[size_t(t)] == rank && dependence_.begun_before(other, dependence_.last[size_t(t)])) return true;
    return false;
  }

  std::string words(const Place& place) const {
    if (place.kind == Place::kSlot) return "chunk " + std::to_string(place.shard) + " of c" + std::to_string(place.owner);
    const char* what = place.kind == Place::kInput ? "input" : place.kind == Place::kScratch ? "scratch" : "output";
    return std::string(what) + " of rank " + std::to_string(place.owner) + " (shard " + std::to_string(place.shard) + ")";
  }

  const Program& program_;
  const Contract& contract_;
  const Dependence& dependence_;
  int share_;
  bool in_place_, repeated_, prescaled_ = false, postscaled_ = false;
  Expressions expressions_;
  std::unordered_map<Place, Content, Spread> memory_;
  std::map<int, int> exchanged_;  // an exchange, what it hands to its members
  std::vector<std::vector<int>> sources_;  // per event, who wrote what it read
  std::map<std::pair<int, int>, std::vector<Access>> scratch_;  // by owner and shard
};

}  // namespace

void execute_share(const Program& program, const Contract& contract, int share, const Dependence& dependence, bool in_place, bool repeated) {
  Execution(program, contract, share, dependence, in_place, repeated).run();
}

}  // namespace blinkcoll::verifier
