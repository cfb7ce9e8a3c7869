// Values as expressions: equal expressions have equal numbers, so comparing results is comparing numbers.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace blinkcoll::verifier {

class Expressions {
 public:
  int input(int rank, int shard) { return number({kInput, rank, shard}); }
  int prescaled(int value) { return number({kPrescaled, value}); }
  int postscaled(int value) { return number({kPostscaled, value}); }
  // Added up in this order.
  int sum(const std::vector<int>& values) {
    std::vector<int> key{kSum};
    key.insert(key.end(), values.begin(), values.end());
    return number(key);
  }

  // Added up by a switch, in an order that is not ours: the same value for all who get it from this event, and from no other.
  int switched(int event, const std::vector<int>& values) {
    std::vector<int> key{kSwitched, event};
    key.insert(key.end(), values.begin(), values.end());
    return number(key);
  }

  // Whether the value is every one of `nranks` ranks' inputs of this shard, each once, scaled before and after or not.
  bool is_sum_of_all(int value, int nranks, int shard, bool before, bool after);
  // The value in words, the first few terms of it.
  std::string describe(int value) const;

 private:
  enum Kind { kInput, kPrescaled, kPostscaled, kSum, kSwitched };

  int number(const std::vector<int>& key) {
    auto [found, fresh] = numbers_.try_emplace(key, int(keys_.size()));
    if (fresh) keys_.push_back(key);
    return found->second;
  }
  // Where the terms of a sum begin: behind its kind, and in a switch the event.
  static size_t first_term(const std::vector<int>& key) { return key[0] == kSwitched ? 2 : 1; }
  // The terms of a sum of sums, sorted.
  const std::vector<int>& terms(int value);
  void add_words(int value, std::string& text) const;

  std::map<std::vector<int>, int> numbers_;
  std::vector<std::vector<int>> keys_;
  std::map<int, std::vector<int>> terms_;
};

}  // namespace blinkcoll::verifier
