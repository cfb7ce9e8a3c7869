// A program's run on a machine, event by event.
//
// A channel runs its steps in order. A step begins when the last of its waits has come true and the channel has paid its
// synchronisation; it then is one flow over every link and memory that its operands touch, all destinations in lockstep,
// because one thread block stores each element everywhere before it turns to the next. When the flow ends the step
// signals, and the channel is free: stores are posted, so what is still on the wire costs it nothing. The other end of a
// connection sees a signal after the latency of the way.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "blinkcoll/partition.h"
#include "blinkcoll/program.h"
#include "event_queue.h"
#include "fair_sharing.h"
#include "prepared.h"

namespace blinkcoll::simulator {

constexpr uint32_t kNoRecord = 0xffffffffu;

// Events this close together are taken as simultaneous, so that symmetric programs share one computation of rates.
constexpr double kTogetherUs = 1e-6;

// Why a step did not begin earlier.
enum class Cause : uint32_t { kStart = 0, kOwnChannel, kArrival, kCredit, kAfter };

// One executed step, for traces and critical paths. `cause_record`: the record of the step it waited for last.
struct Record {
  uint32_t channel, step, cause, cause_record;
  uint64_t iteration;
  double ready_us, start_us, end_us, nbytes;
};

class Simulation {
 public:
  struct Launch {
    u64 count, chunk_bytes;
    u32 elem_size;
    bool trace;
    const u64* bounds;  // where unequal shards begin, or null (partition.h)
  };
  // `prepared` and the launch's bounds must outlive the simulation.
  Simulation(const Prepared& prepared, const Launch& launch);

  // Go on until the program has come to its end (true), or it is sure that it will not within `within_us` (false): then it
  // may go on later, within more. Throws std::runtime_error, naming who waits for what, where the program deadlocks.
  bool advance(double within_us);

  // It does not end sooner than this: as far as it was looked at, on the way to a finite `within_us`.
  double least_end_us() const { return least_end_us_; }
  double makespan_us() const { return makespan_us_; }
  // The longest that any rank is busy, from when its first step could begin to the end of its last: calls that follow each
  // other on a stream take this each, where a rank that is done may begin the next before others are.
  double longest_rank_us() const;
  uint64_t steps_run() const { return steps_run_; }
  const std::vector<Record>& records() const { return records_; }
  // Bytes on the wire per link, headers of the protocol included.
  std::vector<double> link_bytes() const;
  uint32_t rank_of(uint32_t channel) const { return channels_[channel].rank; }

 private:
  struct Stamp {
    double time;
    uint32_t record;
  };
  // Signals of one end of a connection that the other end may still look at; grows where nothing limits them.
  class Signals {
   public:
    void reset(uint32_t least);
    void push(Stamp stamp, uint64_t oldest_needed);
    bool reached(uint64_t sequence) const { return sequence < count_; }
    const Stamp& at(uint64_t sequence) const { return ring_[sequence & (ring_.size() - 1)]; }
    uint64_t count() const { return count_; }

   private:
    std::vector<Stamp> ring_;
    uint64_t count_ = 0;
  };
  struct Connection {
    Signals published, taken;
    uint32_t reader_waits, writer_waits;  // the channel blocked there, or kNobody
  };
  enum class State : uint8_t { kBlocked, kStarting, kMoving, kDone };
  struct Channel {
    uint32_t rank, first_step, nsteps, watched;
    uint32_t position;
    uint64_t iteration, iterations;
    State state;
    double free_at;        // when its last step ended
    uint32_t last_record;
    Record current;
    std::vector<Stamp> progress;             // of a watched channel: when each step ended
    std::vector<uint32_t> watchers;          // channels blocked on it
  };
  static constexpr uint32_t kNobody = 0xffffffffu;

  void try_start(uint32_t channel);
  bool ready(uint32_t index, const StepEntry& step, Stamp* last, Cause* cause);
  double bytes_of(const StepEntry& step, uint64_t iteration) const;
  void begin(uint32_t channel, double now);
  void complete(uint32_t channel, double now);
  void signal(uint32_t rank, const SyncEntry& sync, uint64_t iteration, Stamp stamp);
  void look(double now);
  void measure_ends();
  double least_end_from(double now);
  [[noreturn]] void fail_deadlocked() const;

  const Prepared& prepared_;
  const ProgramView program_;
  Partition partition_{};
  u32 elem_size_ = 1;
  bool trace_ = false;
  std::vector<Loop> loops_;    // per share
  std::vector<Range> ranges_;  // per share and shard
  std::vector<Channel> channels_;
  std::vector<Connection> connections_;
  std::vector<double> moved_;         // payload bytes per step
  std::vector<Record> records_;
  EventQueue queue_;
  FairSharing sharing_;
  double makespan_us_ = 0;
  uint64_t steps_run_ = 0;
  struct Span {
    double first, last;
  };
  std::vector<Span> busy_;            // per rank: when it began and when it ended

  // What of a resource is sure to be taken yet, how soon at the earliest, and what is left when it has been.
  struct Outlook {
    double left_us, head_us, tail_us;
  };
  uint64_t steps_to_run_ = 0, next_look_ = 0;
  double least_end_us_ = 0;
  Precedence::Ends ends_;
  std::vector<Outlook> outlooks_;  // per resource
};

}  // namespace blinkcoll::simulator
