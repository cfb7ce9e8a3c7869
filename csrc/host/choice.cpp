#include "choice.h"

#include <algorithm>

namespace blinkcoll {
namespace {

// Trials of ways that are not the best may cost one part in so many of all calls; one in fewer once something has changed.
constexpr u64 kPatience = 128, kUrgentPatience = 8;
// What a way costs more than the best counts as so much of the best, at least and at most: else one that costs hardly more would be tried at
// every turn, and one that was far worse never again.
constexpr u64 kLeastExcess = 8, kMostExcess = 8;
// A first call that cost so many times what the best does ends its way's trial, since what it finds in the caches and in memory that was never used
// explains so much at most; of large calls it explains little.
constexpr u64 kFarWorse = 4;
// A trial that ended with less than one and a half times the best's cost may have met with bad luck: another one follows soon.
bool much_worse(u64 cost, u64 best) { return 2 * cost >= 3 * best; }

// Of one call that was interrupted no more is believed than twice what is known.
u64 believed(u64 known, u64 seen) { return std::min(seen, 2 * known); }

}  // namespace

bool Choice::complete() const {
  return !ways_[best_].guessed && std::all_of(ways_.begin(), ways_.end(), [](const Way& way) { return way.cost > 0; });
}

Choice Choice::of_others(bool likely) const {
  Choice made(u32(ways_.size()), large_);
  for (size_t w = 0; w < ways_.size(); w++)
    made.ways_[w] = {ways_[w].cost, std::max<u64>(ways_[best_].cost, 1), 0, std::max<u64>(ways_[w].calls, 1), !likely || !much_worse(ways_[w].cost, ways_[best_].cost), false, true};
  made.best_ = made.now_ = best_;
  return made;
}

void Choice::learn(u64 cost, u64 calls) {
  cost = std::max<u64>(cost, 1);
  Way& way = ways_[now_];
  if (!trying_) cost = believed(way.cost, cost);
  spent_ += cost * calls;
  way.guessed = false;
  if (!trying_) {
    follow(cost);
  } else if (!ends_trial(cost, calls)) {
    return;
  }
  way.known = spent_;
  way.against = ways_[best_].cost;
  way.urgent = !way.tried && !much_worse(way.cost, ways_[best_].cost);
  way.tried = true;
  choose();
}

// The first call found the caches as another way had left them, and maybe memory that nobody had used: it only says whether to go on. Where several follow
// that warm the caches, the less of the next two counts; of calls that are so large that one does, the less of the first two.
bool Choice::ends_trial(u64 cost, u64 calls) {
  Way& way = ways_[now_];
  if (tries_++ == 0) way.calls = 0, timed_ = 0, warmed_ = false;
  way.calls += calls;
  if (calls > 1 && !warmed_) {
    warmed_ = true;
    timed_ = 0;
    if (tries_ == 1) way.cost = cost;
    return false;
  }
  way.cost = timed_++ == 0 ? cost : std::min(way.cost, cost);
  if (tries_ > 1 || now_ == best_) return timed_ == 2;
  return large_ ? much_worse(cost, ways_[best_].cost) : cost >= kFarWorse * ways_[best_].cost;
}

void Choice::follow(u64 cost) {
  Way& way = ways_[now_];
  way.cost = (3 * way.cost + cost + 3) / 4;
  if (way.cost > 2 * settled_ || way.cost * 5 < settled_ * 3) look_at_all_again();
}

void Choice::look_at_all_again() {
  for (Way& way : ways_) way.urgent = true;
  settled_ = ways_[best_].cost;
}

void Choice::choose() {
  u32 best = best_;
  for (u32 w = 0; w < ways_.size(); w++)
    if (ways_[w].cost > 0 && !ways_[w].guessed && ways_[w].cost < ways_[best].cost) best = w;
  if (best != best_ && ways_[best].cost * 20 < ways_[best_].cost * 19) {  // not for what may be chance
    best_ = best;
    settled_ = ways_[best].cost;
  }
  if (settled_ == 0) settled_ = ways_[best_].cost;
  const u32 next = next_to_try();
  trying_ = next < ways_.size();
  tries_ = 0;
  now_ = trying_ ? next : best_;
}

// One that was never tried, or one that calls like these let hope for, or one whose turn it is; ways_.size(): none.
u32 Choice::next_to_try() const {
  u32 next = u32(ways_.size()), likely = next, due = next;
  for (u32 w = 0; w < ways_.size(); w++) {
    const Way& way = ways_[w];
    if (way.cost == 0 && next == ways_.size()) next = w;
    if (way.guessed && way.cost * 10 < ways_[best_].cost * 11 && (likely == ways_.size() || way.cost < ways_[likely].cost)) likely = w;
    if (w != best_ && due == ways_.size() && worth_trying(way)) due = w;
  }
  return next < ways_.size() ? next : likely < ways_.size() ? likely : due;
}

bool Choice::worth_trying(const Way& way) const {
  // What slows one down, or speeds it up, mostly does so with all: so it is compared with what the best one cost then.
  const u64 best = ways_[best_].cost, worse = u64(double(best) * double(way.cost - std::min(way.cost, way.against)) / double(way.against));
  const u64 excess = std::clamp(worse, best / kLeastExcess + 1, best * kMostExcess + 1);
  return spent_ - way.known >= (way.urgent ? kUrgentPatience : kPatience) * (ways_.size() - 1) * way.calls * excess;
}

}  // namespace blinkcoll
