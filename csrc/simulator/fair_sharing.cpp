#include "fair_sharing.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace blinkcoll::simulator {
namespace {

// Rates and capacities closer than this part of themselves are taken as equal.
constexpr double kSlack = 1e-9;
// A load is added up anew after this many changes, long before their rounding errors come near kSlack.
constexpr uint32_t kUpdatesBeforeSum = 4096;

}  // namespace

FairSharing::FairSharing(const std::vector<double>& capacity, const std::vector<Use>& table, uint32_t nflows)
    : table_(table.data()), flows_(nflows), place_(table.size()) {
  resources_.reserve(capacity.size());
  for (double c : capacity) resources_.push_back({c, 0, 0, 0, 0, 0, false, {}});
}

void FairSharing::affect(uint32_t flow) {
  if (flows_[flow].affected) return;
  flows_[flow].affected = true;
  affected_.push_back(flow);
}

void FairSharing::change_load(Resource& resource, double difference) {
  resource.load += difference;
  if (++resource.updates < kUpdatesBeforeSum && !resource.members.empty()) return;
  resource.updates = 0;
  resource.load = 0;
  for (const Member& member : resource.members) resource.load += member.coefficient * flows_[member.flow].rate;
}

void FairSharing::set_bottleneck(Flow& flow, uint32_t resource) {
  if (flow.bottleneck != kOwnLimit) resources_[flow.bottleneck].nlimited--;
  flow.bottleneck = resource;
  if (resource != kOwnLimit) resources_[resource].nlimited++;
}

// The flows for which a change on one of these resources matters at once.
void FairSharing::affect_limited_by(Uses uses) {
  for (const Use& use : uses) {
    const Resource& r = resources_[use.resource];
    if (r.nlimited == 0) continue;
    for (const Member& member : r.members)
      if (flows_[member.flow].bottleneck == use.resource) affect(member.flow);
  }
}

void FairSharing::start(uint32_t flow, Uses uses, double limit, double amount, double now) {
  affect_limited_by(uses);
  Flow& f = flows_[flow];
  f.uses = uses;
  f.limit = limit;
  f.left = amount;
  f.since = now;
  f.rate = 0;
  f.active = true;
  for (const Use* use = uses.first; use != uses.last; use++) {
    std::vector<Member>& members = resources_[use->resource].members;
    place_[use - table_] = uint32_t(members.size());
    members.push_back({flow, uint32_t(use - table_), use->coefficient});
  }
  affect(flow);
}

void FairSharing::finish(uint32_t flow) {
  Flow& f = flows_[flow];
  f.active = false;
  set_bottleneck(f, kOwnLimit);
  for (const Use& use : f.uses) {
    std::vector<Member>& members = resources_[use.resource].members;
    const uint32_t place = place_[&use - table_];
    members[place] = members.back();
    place_[members[place].use] = place;
    members.pop_back();
    change_load(resources_[use.resource], -use.coefficient * f.rate);
  }
  affect_limited_by(f.uses);
}

const std::vector<uint32_t>& FairSharing::settle(double now) {
  changed_.clear();
  // Flows that have left since they were marked.
  size_t kept = 0;
  for (uint32_t flow : affected_) {
    if (flows_[flow].active)
      affected_[kept++] = flow;
    else
      flows_[flow].affected = false;
  }
  affected_.resize(kept);
  if (affected_.empty()) return changed_;
  do {
    touch_resources();
    fill();
  } while (extend());
  for (uint32_t flow : affected_) {
    Flow& f = flows_[flow];
    f.affected = false;
    if (std::abs(f.next - f.rate) <= kSlack * f.next) continue;
    f.left -= f.rate * (now - f.since);
    if (f.left < 0) f.left = 0;
    f.since = now;
    double difference = f.next - f.rate;
    f.rate = f.next;
    for (const Use& use : f.uses) change_load(resources_[use.resource], use.coefficient * difference);
    changed_.push_back(flow);
  }
  affected_.clear();
  for (uint32_t r : touched_) resources_[r].touched = false;
  touched_.clear();
  return changed_;
}

// What the affected flows can share: capacity less what all others keep.
void FairSharing::touch_resources() {
  for (uint32_t index : touched_) resources_[index].touched = false;
  touched_.clear();
  for (uint32_t flow : affected_) {
    for (const Use& use : flows_[flow].uses) {
      Resource& r = resources_[use.resource];
      if (!r.touched) {
        r.touched = true;
        r.left = r.capacity - r.load;
        r.demand = 0;
        touched_.push_back(use.resource);
      }
      r.left += use.coefficient * flows_[flow].rate;
      r.demand += use.coefficient;
    }
  }
}

// Progressive filling: all unfrozen flows rise together until a resource is full or a flow has all it can use.
void FairSharing::fill() {
  unfrozen_ = affected_;
  while (!unfrozen_.empty()) {
    double level = std::numeric_limits<double>::infinity();
    for (uint32_t flow : unfrozen_) level = std::min(level, flows_[flow].limit);
    for (uint32_t index : touched_) {
      const Resource& r = resources_[index];
      if (r.demand > kSlack) level = std::min(level, std::max(0.0, r.left) / r.demand);
    }
    double reached = level * (1 + kSlack);
    size_t before = unfrozen_.size(), kept = 0;
    for (size_t i = 0; i < before; i++) {
      uint32_t flow = unfrozen_[i];
      const Flow& f = flows_[flow];
      bool stays = true;
      if (f.limit <= reached) {
        freeze(flow, level, kOwnLimit);
        stays = false;
      }
      for (const Use* use = f.uses.begin(); stays && use != f.uses.end(); ++use) {
        const Resource& r = resources_[use->resource];
        // Freezing one flow at `level` leaves a resource's quotient left / demand at the level where it was at it.
        if (std::max(0.0, r.left) <= reached * r.demand) {
          freeze(flow, level, use->resource);
          stays = false;
        }
      }
      if (stays) unfrozen_[kept++] = flow;
    }
    unfrozen_.resize(kept);
  }
}

void FairSharing::freeze(uint32_t flow, double level, uint32_t bottleneck) {
  Flow& f = flows_[flow];
  f.next = level;
  set_bottleneck(f, bottleneck);
  for (const Use& use : f.uses) {
    Resource& r = resources_[use.resource];
    r.left -= use.coefficient * level;
    r.demand -= use.coefficient;
  }
}

// Whoever breaks the condition of fairness joins the affected; false where nobody does.
bool FairSharing::extend() {
  size_t before = affected_.size();
  for (uint32_t index : touched_) {
    const Resource& r = resources_[index];
    if (r.nlimited == 0) continue;
    double fastest = 0, limited = -1;  // of the affected here: any, and those that this resource limits
    bool others = false;
    for (const Member& member : r.members) {
      const Flow& f = flows_[member.flow];
      if (!f.affected) {
        others = true;
        continue;
      }
      fastest = std::max(fastest, f.next);
      if (f.bottleneck == index) limited = std::max(limited, f.next);
    }
    if (!others) continue;
    bool full = r.left <= kSlack * r.capacity;
    for (const Member& member : r.members) {
      const Flow& f = flows_[member.flow];
      if (f.affected) continue;
      bool in_the_way = limited >= 0 && f.rate > limited * (1 + 2 * kSlack);
      bool free_to_rise = f.bottleneck == index && (!full || fastest > f.rate * (1 + 2 * kSlack));
      if (in_the_way || free_to_rise) affect(member.flow);
    }
  }
  return affected_.size() > before;
}

}  // namespace blinkcoll::simulator
