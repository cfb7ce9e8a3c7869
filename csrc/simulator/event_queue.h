// Items and their times, an item with at most one, which can be changed: who is next?
//
// Times lie in a flat array; above it each level keeps the earliest of every kFan entries below (a tournament tree). Most
// events move the ends of several flows at once, and recomputing a few minima side by side costs less than the
// unpredictable comparisons of a binary heap.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace blinkcoll::simulator {

class EventQueue {
 public:
  explicit EventQueue(uint32_t nitems) {
    size_t groups = nitems;
    do {
      groups = groups / kFan + (groups % kFan != 0 || groups == 0);
      levels_.emplace_back(groups * kFan, kNever);
    } while (groups > 1);
  }

  bool empty() const { return next_time() == kNever; }
  double next_time() const { return earliest(levels_.back().data()); }

  // Schedule `item`, or move it to another time.
  void set(uint32_t item, double time) {
    levels_[0][item] = time;
    size_t at = item;
    for (size_t level = 1; level < levels_.size(); level++) {
      at /= kFan;
      const double least = earliest(levels_[level - 1].data() + at * kFan);
      if (levels_[level][at] == least) return;
      levels_[level][at] = least;
    }
  }

  // The next item, which then has no time; of several with the same time the lowest, so that a run is the same on every machine.
  uint32_t pop() {
    const double time = next_time();
    size_t at = 0;
    for (size_t level = levels_.size(); level-- > 0;) {
      const double* entries = levels_[level].data();
      for (at *= kFan; entries[at] != time;) at++;
    }
    set(uint32_t(at), kNever);
    return uint32_t(at);
  }

 private:
  static constexpr size_t kFan = 8;
  static constexpr double kNever = std::numeric_limits<double>::infinity();

  static double earlier(double a, double b) { return a < b ? a : b; }
  static double earliest(const double* of) {
    return earlier(earlier(earlier(of[0], of[1]), earlier(of[2], of[3])), earlier(earlier(of[4], of[5]), earlier(of[6], of[7])));
  }

  std::vector<std::vector<double>> levels_;  // times of items, then of groups of them
};

}  // namespace blinkcoll::simulator
