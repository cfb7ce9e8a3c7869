// Proof that a program is right for every element count and chunk size; docs/programs.md states the theorem.
//
// The passes, each over data of the one before: structure.cpp (names, ends, owners), exchange.cpp (groups agree), dependence.cpp (which step waits
// for which, over how many iterations; deadlocks), execution.cpp (values and races in one iteration, the promise). The last two are per
// share, and done once for shares of one form (form.cpp).
#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "contract.h"
#include "ir.h"

namespace blinkcoll::verifier {

// What is wrong with a program; the text names rank, channel, step and iteration where there are such.
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws Refused. Out of place, and in place too where the program claims that; `repeated`: also that a rank
// may begin its next call as soon as its own has ended.
void verify(const Program& program, bool repeated);

// Throws Refused where half-open ranges of elements do not cover 0..count exactly once.
void check_cover(std::vector<std::pair<unsigned long long, unsigned long long>> ranges, unsigned long long count);

// -- the passes ------------------------------------------------------------------------------------------------------

void check_structure(const Program& program, const Contract& contract);
// All members of every exchange's group take part in it, alike and equally often.
void check_exchanges(const Program& program, const Contract& contract);

// All that the passes below look at in a share, connections and channels numbered as they come: equal for shares of which
// one proof holds for both.
std::vector<int> form_of_share(const Program& program, int share);

// A step of a share, in an iteration that stands for all.
struct Event {
  int rank, channel, index;
  const Step* step;
  int track, order;                 // the channel's number in this share, the place among its steps (from 1)
  std::vector<int> before;          // events of the same iteration that it may have to wait for: what deadlocks are made of
  std::vector<int> before_by_lines; // more of them: whose data arrives in lines
  std::vector<std::pair<int, int>> uses;  // connection, and which use of it in an iteration
  int exchange = -1;                // which of the share's exchanges it is part of
  std::vector<int> surely;          // of an exchange: those of `before` that it waits for whatever the engine does
  int use(int connection) const;
};

// All events of one share with the order that every iteration has in itself.
struct Dependence {
  std::vector<Event> events;
  std::vector<int> order;           // a topological order of the events
  int ntracks = 0, nexecutors = 0;
  std::vector<int> clocks;          // per event: for each track, how many of its events are complete, in memory, before or at it
  std::vector<int> last;            // per track, its last event
  std::vector<int> rank_of_track;
  std::vector<int> at_end;          // per executor and track, how many of the track's events are complete when all channels of the executor have ended
  std::vector<char> begun;          // per event and executor, whether the executor has surely begun
  std::vector<std::vector<int>> exchanges;  // of each, its members' events in the order of the group

  int clock(int event, int track) const { return clocks[size_t(event) * size_t(ntracks) + size_t(track)]; }
  // Whether a rank's call cannot end before an event is complete.
  bool ends_after(int rank, int event) const { return at_end[size_t(rank) * size_t(ntracks) + size_t(events[size_t(event)].track)] >= events[size_t(event)].order; }
  bool begun_before(int rank, int event) const { return begun[size_t(event) * size_t(nexecutors) + size_t(rank)]; }
  bool ordered(int earlier, int later) const { return clock(later, events[size_t(earlier)].track) >= events[size_t(earlier)].order; }
};

Dependence dependence_of_share(const Program& program, int share);
void execute_share(const Program& program, const Contract& contract, int share, const Dependence& dependence, bool in_place, bool repeated);

std::string name(const Event& event);
std::string name(int rank, int channel, int step);

}  // namespace blinkcoll::verifier
