// When a run must end at the earliest, as things stand: what its busiest resource and its busiest channel have left, what must
// happen before either can begin and what must follow after (precedence.h).
#include <algorithm>
#include <limits>

#include "simulation.h"

namespace blinkcoll::simulator {
namespace {

// A step may begin and end this much sooner than its own times say, with others nearby.
constexpr double kEarlyUs = 2 * kTogetherUs;
// So many looks cost about as much as the steps between two of them would if there were one; and a run has so many at most.
constexpr uint64_t kLooks = 8, kMostLooks = 128;

}  // namespace

void Simulation::look(double now) {
  if (next_look_ == 0) measure_ends();
  least_end_us_ = std::max(least_end_us_, least_end_from(now));
  next_look_ = steps_run_ + 1 + std::max((prepared_.plans.size() + prepared_.uses.size()) / kLooks, steps_to_run_ / kMostLooks);
}

void Simulation::measure_ends() {
  std::vector<Precedence::Least> least(prepared_.plans.size(), {0, 0});
  for (uint32_t s = 0; s < least.size(); s++) {
    const StepEntry& step = program_.step(s);
    const Prepared::StepPlan& plan = prepared_.plans[s];
    const Loop& loop = loops_[step.share];
    auto least_us = [&](uint64_t iteration) { return plan.delay_us + bytes_of(step, iteration) / plan.fastest - kEarlyUs; };
    if (loop.iterations) least[s] = {least_us(0), least_us(loop.iterations - 1)};
  }
  ends_ = prepared_.precedence.ends(least, loops_);
}

// A lower bound: no run ends sooner from here on.
double Simulation::least_end_from(double now) {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  outlooks_.assign(prepared_.capacity.size(), {0, kNever, kNever});
  double end_us = now;
  for (uint32_t c = 0; c < channels_.size(); c++) {
    const Channel& channel = channels_[c];
    if (channel.state == State::kDone) continue;
    double busy_us = 0;
    uint64_t most = 0;
    double tail_us = 0;
    for (u32 position = 0; position < channel.nsteps; position++) {
      const uint32_t s = channel.first_step + position;
      const StepEntry& step = program_.step(s);
      const Prepared::StepPlan& plan = prepared_.plans[s];
      const bool current = position == channel.position;
      const uint64_t all = loops_[step.share].iterations;
      const uint64_t begun = channel.iteration + (position < channel.position || (current && channel.state != State::kBlocked));
      const uint64_t to_begin = begun < all ? all - begun : 0;
      if (all >= most) {
        most = all;
        tail_us = ends_.tail_us[s];
      }
      double left = 0;
      if (step.op != kNop) left = double(ranges_[step.share * size_t(partition_.nshards) + step.shard].length) * elem_size_ - moved_[s];
      if (current && channel.state == State::kMoving) left += std::max(0.0, sharing_.left(c, now));
      const double early_us = double(to_begin + current) * kEarlyUs;
      busy_us += double(to_begin) * plan.delay_us + left / plan.fastest - early_us;
      if (left <= 0) continue;
      const double begins_us = ends_.head_us[s] + plan.delay_us - kEarlyUs;
      for (uint32_t u = plan.first_use; u < plan.first_use + plan.nuses; u++) {
        Outlook& outlook = outlooks_[prepared_.uses[u].resource];
        outlook.left_us += left * prepared_.uses[u].coefficient / prepared_.capacity[prepared_.uses[u].resource] - early_us;
        outlook.head_us = std::min(outlook.head_us, begins_us);
        outlook.tail_us = std::min(outlook.tail_us, ends_.tail_us[s]);
      }
    }
    end_us = std::max(end_us, std::max(now, ends_.head_us[channel.first_step]) + busy_us + tail_us);
  }
  for (const Outlook& outlook : outlooks_)
    if (outlook.head_us < kNever) end_us = std::max(end_us, std::max(now, outlook.head_us) + outlook.left_us + outlook.tail_us);
  return end_us;
}

}  // namespace blinkcoll::simulator
