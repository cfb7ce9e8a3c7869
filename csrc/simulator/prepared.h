// A program on a machine, as all its runs share it: what each step loads, and what it costs whatever the chunk.
#pragma once

#include <cstdint>
#include <vector>

#include "blinkcoll/program.h"
#include "fair_sharing.h"
#include "machine.h"
#include "precedence.h"

namespace blinkcoll::simulator {

struct Prepared {
  // `program` and `machine` must outlive it.
  Prepared(ProgramView program, const Machine& machine);
  Prepared(const Prepared&) = delete;

  struct StepPlan {
    uint32_t first_use, nuses;
    double limit, delay_us;
    double fastest;  // what it moves at most when it is alone
  };

  const ProgramView program;
  const Machine& machine;
  const Precedence precedence;
  std::vector<StepPlan> plans;
  std::vector<Use> uses;       // per step, without resources that never bind
  std::vector<Use> link_uses;  // per step, links only, for the byte counts
  std::vector<uint32_t> first_link_use;
  std::vector<double> capacity;  // of links, then of ranks' memories

 private:
  void plan_steps();
  void plan_step(uint32_t rank, const StepEntry& step, std::vector<double>& load);
  void drop_resources_that_never_bind();
};

}  // namespace blinkcoll::simulator
