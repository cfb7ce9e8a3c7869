// A binary heap of (time, item) where an item has at most one time and that time can be changed or withdrawn.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace blinkcoll::simulator {

class EventQueue {
 public:
  explicit EventQueue(uint32_t nitems) : position_(nitems, kAbsent) { heap_.reserve(nitems); }

  bool empty() const { return heap_.empty(); }
  double next_time() const { return heap_.front().first; }

  // Schedule `item`, or move it to another time.
  void set(uint32_t item, double time) {
    uint32_t at = position_[item];
    if (at == kAbsent) {
      at = uint32_t(heap_.size());
      heap_.emplace_back();
      rise(at, {time, item});
    } else if (before({time, item}, heap_[at])) {
      rise(at, {time, item});
    } else {
      sink(at, {time, item});
    }
  }

  uint32_t pop() {
    uint32_t item = heap_.front().second;
    position_[item] = kAbsent;
    Entry last = heap_.back();
    heap_.pop_back();
    if (!heap_.empty()) sink(0, last);
    return item;
  }

 private:
  using Entry = std::pair<double, uint32_t>;
  static constexpr uint32_t kAbsent = 0xffffffffu;

  // Ties go to the lower item, so that a run is the same on every machine.
  static bool before(const Entry& a, const Entry& b) { return a.first < b.first || (a.first == b.first && a.second < b.second); }

  void put(uint32_t at, const Entry& entry) {
    heap_[at] = entry;
    position_[entry.second] = at;
  }
  void rise(uint32_t at, const Entry& entry) {
    while (at > 0 && before(entry, heap_[(at - 1) / 2])) {
      put(at, heap_[(at - 1) / 2]);
      at = (at - 1) / 2;
    }
    put(at, entry);
  }
  void sink(uint32_t at, const Entry& entry) {
    uint32_t size = uint32_t(heap_.size());
    for (uint32_t child; (child = 2 * at + 1) < size; at = child) {
      if (child + 1 < size && before(heap_[child + 1], heap_[child])) child++;
      if (!before(heap_[child], entry)) break;
      put(at, heap_[child]);
    }
    put(at, entry);
  }

  std::vector<Entry> heap_;
  std::vector<uint32_t> position_;
};

}  // namespace blinkcoll::simulator
