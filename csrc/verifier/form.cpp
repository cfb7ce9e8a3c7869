// What a share is but for the names of its connections and channels. A program has several shares of one form where a tree's
// data goes through several channels, or where all heads of a switch do alike: what is proven of one is proven of each.
#include <map>

#include "verify.h"

namespace blinkcoll::verifier {
namespace {

// Every list is preceded by its length, so that different shares have different forms.
class Form {
 public:
  Form(const Program& program, int share) : program_(program), share_(share) {}

  std::vector<int> write() {
    for (const std::vector<Channel>& channels : program_.ranks) add_rank(channels);
    return std::move(form_);
  }

 private:
  void add_rank(const std::vector<Channel>& channels) {
    std::map<int, int> number;  // of this share's channels
    for (size_t c = 0; c < channels.size(); c++)
      if (!channels[c].empty() && channels[c][0].share == share_) number.try_emplace(int(c), int(number.size()));
    form_.push_back(int(number.size()));
    for (const auto& [c, unused] : number) {
      form_.push_back(int(channels[size_t(c)].size()));
      for (const Step& step : channels[size_t(c)]) add_step(step, number);
    }
  }

  void add_step(const Step& step, const std::map<int, int>& number) {
    form_.insert(form_.end(), {int(step.op), step.shard, step.postscaled});
    for (const std::vector<Operand>* listed : {&step.srcs, &step.dsts}) {
      form_.push_back(int(listed->size()));
      for (const Operand& o : *listed) {
        form_.insert(form_.end(), {int(o.buffer), o.rank, o.prescaled, int(o.region), o.shard});
        add_connection(o.connection);
      }
    }
    for (const std::vector<int>* listed : {&step.wait, &step.signal}) {
      form_.push_back(int(listed->size()));
      for (int c : *listed) add_connection(c);
    }
    form_.push_back(int(step.after.size()));
    for (const After& a : step.after) form_.insert(form_.end(), {number.at(a.channel), a.step, a.lag});
    form_.push_back(int(step.group.size()));
    form_.insert(form_.end(), step.group.begin(), step.group.end());
  }

  // Its number, and what it is where it has none yet.
  void add_connection(int connection) {
    if (connection == kNone) return form_.push_back(kNone);
    const auto [found, fresh] = connections_.try_emplace(connection, int(connections_.size()));
    form_.push_back(found->second);
    if (!fresh) return;
    const Connection& c = program_.connections[size_t(connection)];
    form_.insert(form_.end(), {c.src, c.dst, c.slots, c.lines});
  }

  const Program& program_;
  int share_;
  std::vector<int> form_;
  std::map<int, int> connections_;
};

}  // namespace

std::vector<int> form_of_share(const Program& program, int share) { return Form(program, share).write(); }

}  // namespace blinkcoll::verifier
