#include "verify.h"

#include <algorithm>
#include <set>

namespace blinkcoll::verifier {

void verify(const Program& program, bool repeated) {
  const Contract contract(program);
  check_structure(program, contract);
  check_exchanges(program, contract);
  std::set<std::vector<int>> proven;
  for (int share = 0; share < int(program.weights.size()); share++) {
    if (!proven.insert(form_of_share(program, share)).second) continue;  // the copies of a tree, for more channels
    const Dependence dependence = dependence_of_share(program, share);
    execute_share(program, contract, share, dependence, false, repeated);
    if (program.in_place) execute_share(program, contract, share, dependence, true, repeated);
  }
}

void check_cover(std::vector<std::pair<unsigned long long, unsigned long long>> ranges, unsigned long long count) {
  std::sort(ranges.begin(), ranges.end());
  unsigned long long at = 0;
  const std::string of = "partition: of " + std::to_string(count) + " elements, ";
  for (const auto& [begin, end] : ranges) {
    if (begin == end) continue;
    if (begin != at) throw Refused(of + (begin > at ? "none covers" : "two ranges cover") + " element " + std::to_string(std::min(at, begin)));
    at = end;
  }
  if (at != count) throw Refused(of + "the ranges end at " + std::to_string(at));
}

}  // namespace blinkcoll::verifier
