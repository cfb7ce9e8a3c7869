// Exchanges: steps that an engine of its own carries between servers (c10d), and of which a program knows the contract only.
//
// Within a share a group is one communicator. Its k-th use in an iteration is one collective call of all its members, in one
// of three forms: every member gives a source and gets the sum of all in the group's order (all-reduce); every member gives,
// the first alone gets (reduce); the first alone gives, every other gets (broadcast).
#include <algorithm>
#include <map>

#include "verify.h"

namespace blinkcoll::verifier {
namespace {

struct Use {
  int rank, channel, index;
  const Step* step;
};

using Members = std::map<int, std::vector<Use>>;  // by rank, in the order of its channel

[[noreturn]] void refuse(const Use& use, const std::string& what) { throw Refused(name(use.rank, use.channel, use.index) + ": exchange: " + what); }

std::string words(const std::vector<int>& group) {
  std::string text;
  for (int rank : group) text += (text.empty() ? "{" : ", ") + std::to_string(rank);
  return text + "}";
}

void check_form(const std::vector<Use>& call, const Contract& contract) {
  const Use& first = call[0];
  size_t givers = 0, others_get = 0;
  for (const Use& use : call) {
    if (use.step->shard != first.step->shard) refuse(use, "is for shard " + std::to_string(use.step->shard) + ", for rank " + std::to_string(first.rank) + " for shard " + std::to_string(first.step->shard));
    if (use.step->postscaled != first.step->postscaled) refuse(use, "is scaled in another way than at rank " + std::to_string(first.rank));
    givers += !use.step->srcs.empty();
    others_get += &use != &first && !use.step->dsts.empty();
  }
  const size_t others = call.size() - 1;
  const bool first_gives = !first.step->srcs.empty(), first_gets = !first.step->dsts.empty();
  const bool sums = givers == call.size() && first_gets && (others_get == others || others_get == 0);
  const bool copies = givers == 1 && first_gives && others_get == others;
  if (!sums && !copies)
    refuse(first, "of its group " + words(first.step->group) + " " + std::to_string(givers) + " give and " + std::to_string(others_get + first_gets) + " get: this is no all-reduce, no reduce to its first member and no broadcast from it");
  if (sums && !contract.reduces()) refuse(first, "a sum in a collective that does not reduce");
}

void check_group(const std::vector<int>& listed, const Members& members, const Contract& contract) {
  const std::vector<Use>& first = members.begin()->second;
  for (int rank : listed)
    if (!members.count(rank)) refuse(first[0], "rank " + std::to_string(rank) + " of its group " + words(listed) + " takes no part");
  for (const auto& [rank, uses] : members) {
    for (const Use& use : uses) {
      if (use.channel != uses[0].channel) refuse(use, "its group is used by another channel of this rank for this share too; a group has one");
      if (use.step->group != first[0].step->group) refuse(use, "its group is " + words(use.step->group) + ", at rank " + std::to_string(first[0].rank) + " it is " + words(first[0].step->group) + ": the order is that of the sum");
    }
    if (uses.size() != first.size())
      refuse(uses[0], std::to_string(uses.size()) + " of its group's exchanges in an iteration, rank " + std::to_string(first[0].rank) + " has " + std::to_string(first.size()));
  }
  for (size_t k = 0; k < first.size(); k++) {
    std::vector<Use> call;
    for (int rank : first[0].step->group) call.push_back(members.at(rank)[k]);
    check_form(call, contract);
  }
}

}  // namespace

void check_exchanges(const Program& program, const Contract& contract) {
  std::map<std::pair<int, std::vector<int>>, Members> groups;  // share and group in rank order
  for (int rank = 0; rank < program.nranks(); rank++) {
    for (size_t c = 0; c < program.ranks[size_t(rank)].size(); c++) {
      const Channel& steps = program.ranks[size_t(rank)][c];
      for (size_t s = 0; s < steps.size(); s++) {
        if (steps[s].op != Op::kExchange) continue;
        std::vector<int> group = steps[s].group;
        std::sort(group.begin(), group.end());
        groups[{steps[s].share, group}][rank].push_back({rank, int(c), int(s), &steps[s]});
      }
    }
  }
  for (const auto& [key, members] : groups) check_group(key.second, members, contract);
}

}  // namespace blinkcoll::verifier
