// What a program runs on, in the simulator's terms: bytes, microseconds, bytes per microsecond.
#pragma once

#include <cstdint>
#include <vector>

#include "fair_sharing.h"

namespace blinkcoll::simulator {

// A way from one rank to another.
struct Route {
  std::vector<uint32_t> links;
  double latency_us = 0;    // until the last byte and the flag behind it are seen at the other end
  double efficiency = 1;    // payload per byte on the wire
  // Slots in host memory: the writer's stores cross `links` up to it, the reader's loads these, and each first load takes
  // a round trip. Empty where slots lie in the reader's memory.
  std::vector<uint32_t> read_links;
  double read_us = 0;
};

// What a step costs besides its bytes, by the protocol of the connections it touches.
struct StepCost {
  double busy_us = 0;  // the channel's own synchronisation: polling, barriers, fences
  double copy_rate = 0, reduce_rate = 0;  // the most a channel moves, payload bytes per microsecond
};

struct Machine {
  std::vector<double> link_rate;    // per link
  std::vector<double> memory_rate;  // per rank: local reads and writes together
  std::vector<Route> connections;   // per connection of the program
  std::vector<StepCost> costs;      // per connection; one more for steps that touch none
  // For operands of all ranks, per rank: what each byte loads on its way to the switches, and from them; may be empty.
  std::vector<std::vector<Use>> group_out, group_back;
  double group_latency_us = 0;      // from a rank to another by way of the switches
  std::vector<Route> pairs;         // [src * nranks + dst], for operands in a peer's buffers; may be empty
};

}  // namespace blinkcoll::simulator
