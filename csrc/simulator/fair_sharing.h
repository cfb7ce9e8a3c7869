// Max-min fair rates of flows over shared resources, kept up to date as flows come and go.
//
// A flow takes `coefficient` units of each of its resources per unit of its rate, and never more than its own limit. An
// allocation is max-min fair exactly when every flow runs at its limit or has a bottleneck: a resource that is full and
// on which no flow is faster (Bertsekas and Gallager, Data Networks, section 6.5.2). After a change only the flows whose
// bottleneck went away or that stand in somebody's way are computed anew, by progressive filling; everybody else's rate
// is checked against that condition, and whoever breaks it joins.
#pragma once

#include <cstdint>
#include <vector>

namespace blinkcoll::simulator {

struct Use {
  uint32_t resource;
  double coefficient;
};

// Some consecutive uses of a table that outlives the flow.
struct Uses {
  const Use *first, *last;
  const Use* begin() const { return first; }
  const Use* end() const { return last; }
};

class FairSharing {
 public:
  // `table` holds the uses of all flows that may start, each by one flow at a time; it must outlive this.
  FairSharing(const std::vector<double>& capacity, const std::vector<Use>& table, uint32_t nflows);

  // From now on `flow` (idle so far) has `amount` to move. Rates are stale until settle().
  void start(uint32_t flow, Uses uses, double limit, double amount, double now);
  // `flow` leaves.
  void finish(uint32_t flow);
  // Rates for the flows there are now; returns those whose time of completion is new.
  const std::vector<uint32_t>& settle(double now);

  double rate(uint32_t flow) const { return flows_[flow].rate; }
  // What it has yet to move.
  double left(uint32_t flow, double now) const { return flows_[flow].left - flows_[flow].rate * (now - flows_[flow].since); }
  double completion(uint32_t flow) const { return flows_[flow].since + flows_[flow].left / flows_[flow].rate; }

 private:
  static constexpr uint32_t kOwnLimit = 0xffffffffu;

  struct Flow {
    Uses uses{nullptr, nullptr};
    double limit = 0, left = 0, since = 0, rate = 0;
    double next = 0;                   // the rate being computed
    uint32_t bottleneck = kOwnLimit;   // the resource that limits it
    bool active = false, affected = false;
  };
  struct Member {
    uint32_t flow, use;  // the latter in the table
    double coefficient;
  };
  struct Resource {
    double capacity;
    double load = 0;              // what the flows on it take together, kept up to date
    double left = 0, demand = 0;  // while filling: capacity not given away yet, and the unfrozen flows' coefficients
    uint32_t nlimited = 0;        // flows whose bottleneck it is
    uint32_t updates = 0;         // of `load`, since it was last added up
    bool touched = false;
    std::vector<Member> members;
  };

  void affect(uint32_t flow);
  void change_load(Resource& resource, double difference);
  void set_bottleneck(Flow& flow, uint32_t resource);
  void affect_limited_by(Uses uses);
  void touch_resources();
  void fill();
  void freeze(uint32_t flow, double level, uint32_t bottleneck);
  bool extend();

  const Use* table_;
  std::vector<Flow> flows_;
  std::vector<uint32_t> place_;  // of each use in the table: where its flow is among the members of its resource
  std::vector<Resource> resources_;
  std::vector<uint32_t> affected_, touched_, unfrozen_, changed_;
};

}  // namespace blinkcoll::simulator
