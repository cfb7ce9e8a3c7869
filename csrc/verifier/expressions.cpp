#include "expressions.h"

#include <algorithm>

namespace blinkcoll::verifier {

const std::vector<int>& Expressions::terms(int value) {
  auto [found, fresh] = terms_.try_emplace(value);
  if (!fresh) return found->second;
  std::vector<int> all;
  const std::vector<int> key = keys_[size_t(value)];
  if (key[0] == kSum || key[0] == kSwitched) {
    for (size_t i = first_term(key); i < key.size(); i++) {
      const std::vector<int>& more = terms(key[i]);
      all.insert(all.end(), more.begin(), more.end());
    }
    std::sort(all.begin(), all.end());
  } else {
    all.push_back(value);
  }
  return terms_[value] = std::move(all);
}

bool Expressions::is_sum_of_all(int value, int nranks, int shard, bool before, bool after) {
  if (after) {
    if (keys_[size_t(value)][0] != kPostscaled) return false;
    value = keys_[size_t(value)][1];
  }
  std::vector<int> wanted;
  for (int rank = 0; rank < nranks; rank++) wanted.push_back(before ? prescaled(input(rank, shard)) : input(rank, shard));
  std::sort(wanted.begin(), wanted.end());
  return terms(value) == wanted;
}

std::string Expressions::describe(int value) const {
  std::string text;
  add_words(value, text);
  if (text.size() <= 200) return text;
  size_t cut = 200;
  while ((text[cut] & 0xc0) == 0x80) cut--;  // not inside a character
  return text.substr(0, cut) + " ...";
}

void Expressions::add_words(int value, std::string& text) const {
  if (text.size() > 200) return;
  const std::vector<int>& key = keys_[size_t(value)];
  switch (key[0]) {
    case kInput: text += "input of rank " + std::to_string(key[1]) + " (shard " + std::to_string(key[2]) + ")"; return;
    case kPrescaled: text += "prescaled "; return add_words(key[1], text);
    case kPostscaled: text += "postscaled ("; add_words(key[1], text); text += ")"; return;
    default: break;
  }
  if (key[0] == kSwitched) text += "in the switch: ";
  std::map<int, int> times;
  for (size_t i = first_term(key); i < key.size(); i++) times[key[i]]++;
  bool first = true;
  for (size_t i = first_term(key); i < key.size(); i++) {
    if (times[key[i]] == 0) continue;
    if (!first) text += " + ";
    first = false;
    if (times[key[i]] > 1) text += std::to_string(times[key[i]]) + " x ";
    times[key[i]] = 0;
    const int kind = keys_[size_t(key[i])][0];
    const bool nested = kind == kSum || kind == kSwitched;
    if (nested) text += "(";
    add_words(key[i], text);
    if (nested) text += ")";
  }
}

}  // namespace blinkcoll::verifier
