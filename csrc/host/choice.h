// Which of several ways calls go: the one that took the least time lately.
//
// Which that is depends on the CPU, on which cores the hypervisor has just given the ranks, on the pages that buffers lie in and on who
// wrote the data last; no threshold holds on two machines, or on one all day. So each way is tried, the best one is used, and the others
// are tried again from time to time: the seldomer, the worse they were. Every choice follows from the costs alone, so ranks that are
// told the same costs choose the same.
#pragma once

#include <vector>

#include "blinkcoll/types.h"

namespace blinkcoll {

class Choice {
 public:
  // `large`: one call fills the caches.
  explicit Choice(u32 nways, bool large = false) : ways_(nways), large_(large) {}
  // Of calls that are much like these: what is known of these is taken for likely, so the best way is tried first, and then those that might be better.
  // `likely`: the others only from time to time, if they were much worse.
  Choice of_others(bool likely = true) const;
  // Whether something is known of every way, and the best one was tried.
  bool complete() const;

  // The way of the next calls.
  u32 way() const { return now_; }
  // What it cost lately; 0: it is on trial.
  u64 cost() const { return trying_ ? 0 : ways_[now_].cost; }
  // Whether a trial goes on after its first call: a few calls bring the caches into the state in which this way leaves them. Those after them are to come one by one.
  bool goes_on() const { return trying_ && tries_ == 1; }
  // So many calls went that way, and the first one cost so much, in any unit, but more than 0. (Of a trial that begins with several at once these
  // warm the caches.)
  void learn(u64 cost, u64 calls);

 private:
  struct Way {
    u64 cost = 0;   // 0: never tried
    u64 against = 1;  // what the best one cost then
    u64 known = 0;  // when that was found out, in costs of all calls
    u64 calls = 0;  // how many it took
    bool urgent = false, tried = false;
    bool guessed = false;  // it is what calls much like these cost
  };

  bool ends_trial(u64 cost, u64 calls);
  void follow(u64 cost);
  void choose();
  u32 next_to_try() const;
  void look_at_all_again();
  bool worth_trying(const Way& way) const;

  std::vector<Way> ways_;
  bool large_;
  u32 best_ = 0, now_ = 0;
  bool trying_ = true, warmed_ = false;
  u32 tries_ = 0, timed_ = 0;  // runs of the trial, if there is one, and how many of them were timed
  u64 spent_ = 0;    // costs of all calls
  u64 settled_ = 0;  // what the best one cost when it was compared with the others
};

}  // namespace blinkcoll
