// Which step waits for which. With one share a channel every dependence is uniform: step b of iteration i waits for step
// a of iteration i - d, for the same d >= 0 in every iteration where i - d >= 0 (Karp, Miller, Winograd: The Organization
// of Computations for Uniform Recurrence Equations, JACM 1967). A cycle of waits that returns to its own iteration has
// d = 0 on all its edges; so some count deadlocks if and only if the edges with d = 0 have a cycle, and what is ordered
// within one iteration is ordered by such edges alone. Edges with d > 0 need not be kept.
#include <algorithm>
#include <map>

#include "verify.h"

namespace blinkcoll::verifier {
namespace {

class Builder {
 public:
  Builder(const Program& program, int share) : program_(program), share_(share), sent_(program.connections.size()), taken_(program.connections.size()) {}

  Dependence build() {
    first_.resize(program_.ranks.size());
    for (int rank = 0; rank < program_.nexecutors(); rank++) {
      for (size_t c = 0; c < program_.ranks[size_t(rank)].size(); c++) {
        const Channel& channel = program_.ranks[size_t(rank)][c];
        first_[size_t(rank)].push_back(int(made_.events.size()));
        if (!channel.empty() && channel[0].share == share_) add_track(rank, int(c), channel);
      }
    }
    check_balance();
    connect();
    sort();
    fill_clocks();
    fill_lifetimes();
    return std::move(made_);
  }

 private:
  void add_track(int rank, int c, const Channel& channel) {
    const int track = made_.ntracks++;
    made_.rank_of_track.push_back(rank);
    std::vector<int> held;  // connections whose current chunk or slot this channel has waited for
    for (size_t s = 0; s < channel.size(); s++) {
      const int id = int(made_.events.size());
      made_.events.push_back({rank, c, int(s), &channel[s], track, int(s) + 1, {}, {}, {}});
      Event& event = made_.events.back();
      if (s > 0) event.before.push_back(id - 1);
      number_uses(event, id, held);
    }
    made_.last.push_back(int(made_.events.size()) - 1);
    if (!held.empty()) throw Refused(name(made_.events.back()) + ": the channel ends without signalling c" + std::to_string(*std::min_element(held.begin(), held.end())));
  }

  void number_uses(Event& event, int id, std::vector<int>& held) {
    const Step& step = *event.step;
    auto holds = [&](int c) { return std::find(held.begin(), held.end(), c) != held.end(); };
    auto use = [&](int c) {
      if (!holds(c)) throw Refused(name(event) + ": uses c" + std::to_string(c) + " without having waited for it");
      if (std::none_of(event.uses.begin(), event.uses.end(), [&](const auto& u) { return u.first == c; })) event.uses.push_back({c, int(side(c, event.rank).size())});
    };
    for (int c : step.wait) {
      if (holds(c)) throw Refused(name(event) + ": waits for c" + std::to_string(c) + " again before signalling it");
      held.push_back(c);
    }
    for (int c : step.wait) use(c);
    for (int c : step.signal) use(c);
    for (const std::vector<Operand>* operands : {&step.srcs, &step.dsts})
      for (const Operand& o : *operands)
        if (o.connection != kNone) use(o.connection);
    for (int c : step.signal) {
      side(c, event.rank).push_back(id);
      held.erase(std::find(held.begin(), held.end(), c));
    }
  }

  // The events that publish on a connection, or that give its slots back, by who this rank is to it.
  std::vector<int>& side(int connection, int rank) {
    return (program_.connections[size_t(connection)].src == rank ? sent_ : taken_)[size_t(connection)];
  }

  void check_balance() const {
    for (size_t c = 0; c < program_.connections.size(); c++) {
      if (sent_[c].size() == taken_[c].size()) continue;
      const Connection& ends = program_.connections[c];
      throw Refused("connection c" + std::to_string(c) + " " + std::to_string(ends.src) + "→" + std::to_string(ends.dst) + ": " + std::to_string(sent_[c].size()) +
                    " chunks are published in an iteration, " + std::to_string(taken_[c].size()) + " are taken");
    }
  }

  void connect() {
    for (Event& event : made_.events) {
      for (int c : event.step->wait) {
        const size_t k = size_t(c);
        const int use = event.use(c), slots = program_.connections[k].slots;
        if (program_.connections[k].dst == event.rank) (program_.connections[k].lines ? event.before_by_lines : event.before).push_back(sent_[k][size_t(use)]);  // arrival: d = 0
        // Credit: use number i * U + u waits for number i * U + u - slots to be given back; the same iteration's if u >= slots.
        else if (use >= slots) event.before.push_back(taken_[k][size_t(use - slots)]);
      }
      for (const After& a : event.step->after)
        if (a.lag == 0) event.before.push_back(first_[size_t(event.rank)][size_t(a.channel)] + a.step);
    }
    meet();
  }

  // An exchange is one node: an engine may hold each member until all have come, so each may wait for all that any of them
  // waits for. It must hold only those that get, until those that give have come: nothing else may be relied on.
  void meet() {
    std::map<std::vector<int>, std::map<int, std::vector<int>>> uses;  // group, rank -> its events
    for (size_t e = 0; e < made_.events.size(); e++)
      if (made_.events[e].step->op == Op::kExchange) uses[made_.events[e].step->group][made_.events[e].rank].push_back(int(e));
    for (const auto& [group, of_rank] : uses) {
      for (size_t k = 0; k < of_rank.begin()->second.size(); k++) {
        std::vector<int> members, before, before_by_lines, given;
        for (int rank : group) members.push_back(of_rank.at(rank)[k]);
        for (int e : members) {
          const Event& event = made_.events[size_t(e)];
          before.insert(before.end(), event.before.begin(), event.before.end());
          before_by_lines.insert(before_by_lines.end(), event.before_by_lines.begin(), event.before_by_lines.end());
          if (!event.step->srcs.empty()) given.insert(given.end(), event.before.begin(), event.before.end());
        }
        for (int e : members) {
          Event& event = made_.events[size_t(e)];
          event.surely = event.before;
          if (!event.step->dsts.empty()) event.surely.insert(event.surely.end(), given.begin(), given.end());
          event.before = before;
          event.before_by_lines = before_by_lines;
          event.exchange = int(made_.exchanges.size());
        }
        made_.exchanges.push_back(members);
      }
    }
  }

  void sort() {
    const size_t n = made_.events.size();
    std::vector<std::vector<int>> follows(n);
    std::vector<size_t> missing(n);
    std::vector<int>& order = made_.order;
    for (size_t e = 0; e < n; e++) {
      const std::vector<int> before = all_before(int(e));
      missing[e] = before.size();
      for (int earlier : before) follows[size_t(earlier)].push_back(int(e));
      if (missing[e] == 0) order.push_back(int(e));
    }
    for (size_t at = 0; at < order.size(); at++)
      for (int later : follows[size_t(order[at])])
        if (--missing[size_t(later)] == 0) order.push_back(later);
    if (order.size() < n) refuse_cycle(missing);
  }

  std::vector<int> all_before(int e) const {
    std::vector<int> all = made_.events[size_t(e)].before;
    const std::vector<int>& lines = made_.events[size_t(e)].before_by_lines;
    all.insert(all.end(), lines.begin(), lines.end());
    return all;
  }

  [[noreturn]] void refuse_cycle(const std::vector<size_t>& missing) const {
    int event = int(std::find_if(missing.begin(), missing.end(), [](size_t m) { return m > 0; }) - missing.begin());
    std::vector<int> trail;
    std::vector<char> seen(missing.size(), 0);
    while (!seen[size_t(event)]) {
      seen[size_t(event)] = 1;
      trail.push_back(event);
      const std::vector<int> before = all_before(event);
      event = *std::find_if(before.begin(), before.end(), [&](int b) { return missing[size_t(b)] > 0; });
    }
    std::string text = "deadlock: ";
    for (auto at = std::find(trail.begin(), trail.end(), event); at != trail.end(); ++at) text += name(made_.events[size_t(*at)]) + " waits for ";
    throw Refused(text + name(made_.events[size_t(event)]));
  }

  // What memory is ordered by: an arrival in lines is not among it.
  void fill_clocks() {
    const size_t width = size_t(made_.ntracks);
    made_.clocks.assign(made_.events.size() * width, 0);
    for (int e : made_.order) {
      int* mine = &made_.clocks[size_t(e) * width];
      const Event& event = made_.events[size_t(e)];
      for (int earlier : event.exchange < 0 ? event.before : event.surely) {
        const int* theirs = &made_.clocks[size_t(earlier) * width];
        for (size_t t = 0; t < width; t++) mine[t] = std::max(mine[t], theirs[t]);
      }
      mine[made_.events[size_t(e)].track] = made_.events[size_t(e)].order;
    }
  }

  void fill_lifetimes() {
    made_.nexecutors = program_.nexecutors();
    const size_t width = size_t(made_.ntracks), n = size_t(made_.nexecutors);
    made_.at_end.assign(n * width, 0);
    for (size_t t = 0; t < width; t++) {
      int* ended = &made_.at_end[size_t(made_.rank_of_track[t]) * width];
      for (size_t u = 0; u < width; u++) ended[u] = std::max(ended[u], made_.clock(made_.last[t], int(u)));
    }
    made_.begun.assign(made_.events.size() * n, 0);
    for (size_t e = 0; e < made_.events.size(); e++)
      for (size_t t = 0; t < width; t++)
        if (made_.clock(int(e), int(t)) > 0) made_.begun[e * n + size_t(made_.rank_of_track[t])] = 1;
  }

  const Program& program_;
  int share_;
  std::vector<std::vector<int>> sent_, taken_;   // per connection, its signals of one iteration
  std::vector<std::vector<int>> first_;          // per rank and channel, its first event
  Dependence made_;
};

}  // namespace

int Event::use(int connection) const {
  for (const auto& [c, number] : uses)
    if (c == connection) return number;
  throw std::logic_error("an event asked for a connection that it does not use");
}

Dependence dependence_of_share(const Program& program, int share) { return Builder(program, share).build(); }

std::string name(const Event& event) { return name(event.rank, event.channel, event.index) + ", iteration 0"; }

}  // namespace blinkcoll::verifier
