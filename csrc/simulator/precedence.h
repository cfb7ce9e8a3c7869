// What must happen before a step and after it, whoever does it: for knowing early that a run cannot end in time.
//
// Within an iteration a step follows the one before it in its channel, and those whose signals it waits for. The longest way
// through these, every step as fast as it can be, says when a step's first iteration may begin and how long others are busy
// after its last: the heads and tails of the one-machine bounds of job-shop scheduling (Carlier, The one-machine sequencing
// problem, European Journal of Operational Research 11, 1982). Waits for free slots and `after` are left out: a bound without
// them is lower, not wrong.
#pragma once

#include <cstdint>
#include <vector>

#include "blinkcoll/partition.h"
#include "blinkcoll/program.h"
#include "machine.h"

namespace blinkcoll::simulator {

class Precedence {
 public:
  // `program` must outlive it.
  Precedence(ProgramView program, const Machine& machine);

  // What a step takes at least from when its waits have come true to its end.
  struct Least {
    double first_us, last_us;  // of its first iteration and of its last
  };
  struct Ends {
    std::vector<double> head_us;  // from the channels' start until the waits of a step's first iteration come true, at least
    std::vector<double> tail_us;  // from the end of its last iteration to that of the run, at least
  };
  // For steps that take so long, in chunk loops of so many iterations (per share).
  Ends ends(const std::vector<Least>& least, const std::vector<Loop>& loops) const;

 private:
  void link_signals_to_waits(const Machine& machine);
  void sort_steps();

  struct Follower {
    uint32_t step;
    double latency_us;
  };
  ProgramView program_;
  std::vector<uint32_t> channel_end_;     // per step: one past the last of its channel
  std::vector<uint32_t> first_follower_;  // per step and one more
  std::vector<Follower> followers_;       // who waits for its signals
  std::vector<uint32_t> order_;           // all steps but those that wait in a circle, each after those it follows
};

}  // namespace blinkcoll::simulator
