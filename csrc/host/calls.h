// One rank's programs, set up once, and calls of them: what a communicator's hot path is made of.
//
// A *table* is one collective (with its root): programs by the largest size that each is for. Where several are for the same sizes, ranks
// choose together by what calls of about that size took lately (choice.h). Programs whose slots lie in
// memory that others use too are `pooled`: before another pooled program runs, a barrier makes sure that all ranks have
// finished with the last one. All ranks make the same calls in the same order, so all take that barrier alike.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "blinkcoll/launch.h"
#include "host/board.h"
#include "host/caller.h"
#include "host/choice.h"
#include "host/platform.h"
#include "host/turn.h"

namespace blinkcoll {

// What a buffer of the collective holds at this rank (contract.py).
enum class View { kNone, kOwn, kWhole, kRow, kColumn };

// Chunks that go round: so many a call, of so many bytes. Slots are written past the caches several times as fast as they are read, so there two are
// enough (measured between two ranks on Zen 4, 1, 2, 3, 4 and 8: reduces of 256 KiB 21.4, 21.5, 22.8, 22.6 and 26.8 us; through the caches 1, 2, 4 and 8: broadcasts
// of 64 KiB 3.3, 3.7, 4.4, 4.5 us, of 1 MiB 45, 47, 39, 41).
constexpr u64 kSpreadChunks = 4, kSpreadChunksPast = 2, kLeastSpread = 16 << 10, kMostSpread = 256 << 10;

struct TableEntry {
  u64 most_bytes;  // of the collective's size; the last entry serves what is larger, too
  u32 program;
  bool premultiplies;     // whether it can; if not, and the call does, the entry before serves it
  Stores stores;
  bool spread;  // in small chunks, which go round in all memory of the slots
};

// A buffer of the caller's.
struct UserBuffer {
  u64 address = 0, count = 0;
};

// A call's; no output: it is in place.
struct UserBuffers {
  UserBuffer input;
  const UserBuffer* output;
};

// Shards of the callers' that are not equal: where each begins in the whole and, for an all-to-all, in the output that holds
// it (partition.h). The tables are the caller's, for the length of the call.
struct UnevenShards {
  const u64 *bounds, *places;
};

// What is done, beside where.
struct CallKind {
  u32 dtype = 0, elem_size = 1, op = 0, divisor = 1;
  double prescale = 1;
  bool premultiplied = false;  // whether ranks have factors, this one's being `prescale`
  const UnevenShards* shards = nullptr;
};

class HostCalls {
 public:
  HostCalls(u32 rank, u32 nranks) : rank_(rank), nranks_(nranks) {}
  HostCalls(const HostCalls&) = delete;
  HostCalls& operator=(const HostCalls&) = delete;

  // `launch` holds addresses of shared memory (abort, doorbell, progress, records, slot_bytes) and the chunk size; the
  // program's bytes and the table of connections are copied. Where its steps use other ranks' buffers, `launch.buffers` is a
  // table in shared memory that each rank writes its own entry of, before it begins a call; that a rank has begun is
  // what the others wait for before they look (the verifier sees to that). Returns the program's number.
  u32 add_program(const Launch& launch, std::string code, const std::string& connections, bool pooled);

  // `word`: call_base() of the collective.
  // `apart`: some of its programs need input and output in memory apart.
  u32 add_table(View input, View output, std::vector<TableEntry> entries, u64 word = 0, bool apart = false);

  // Where calls are shown and others' looked at; `peer`: these calls are sends or receives, with that rank. `compared`: a
  // collective begins by waiting until all ranks have come to it, so that calls that differ move no data. Before any call.
  void set_boards(Boards* boards, int peer, bool compared) {
    watch_ = {boards, peer};
    compared_ = compared;
  }

  // A collective is about to be set up: show it.
  void announce(u64 word);
  // It was set up, and its arguments are refused.
  void cancel();

  // Wake whoever sleeps in a call here: something is to be looked at. The program's doorbells outlive their segment's
  // owner, HostGroup.
  void wake() const;
  // Until the call that is under way, if any, has ended.
  void settle() { std::lock_guard<Turn> turn(busy_); }
  // The same, and no call is made any more: what the programs lie in is about to go.
  void close() {
    std::lock_guard<Turn> turn(busy_);
    closed_ = true;
  }
  // Whether this thread is in the middle of a call: what it does now is a signal's handler.
  bool inside() const { return owner_.load(std::memory_order_relaxed) == std::this_thread::get_id(); }
  bool busy() {
    if (inside()) return true;
    std::unique_lock<Turn> turn(busy_, std::try_to_lock);
    return !turn.owns_lock();
  }
  // How this process numbers the processes of all ranks, for reading and writing their memory; 0: this process.
  void set_processes(std::vector<int> processes) { processes_ = std::move(processes); }

  // Whether all ranks have joined the fences (fences.h), and whether there are more of them than cores. Before any call.
  void set_waiting(bool fenced, bool crowded) { fenced_ = fenced, crowded_ = crowded; }

  // A new pool: the slots of programs that are added from now on. Its pages have been reserved.
  void set_pool(u64 address, u64 nbytes) { fresh_pool_ = {address, nbytes}; }
  // The program that barriers run, which pooled programs are separated by.
  void set_barrier(u32 program) { barrier_ = int(program); }
  // The program, an all-gather of eight bytes a rank, by which ranks tell each other what they choose by.
  void set_agreement(u32 program) { agreement_ = int(program); }

  // One call: `output` is null for a call in place, on a buffer that holds the whole (or all that this rank has). False
  // where a wait ran out, or the caller was interrupted; last() then says which program it was. Throws
  // std::invalid_argument where sizes do not fit or there is no mover, after close(), and inside another call. Calls of several
  // threads take turns.
  bool run(u32 table, const UserBuffer& input, const UserBuffer* output, const CallKind& kind, u64 timeout_ns, Caller& caller);

  // Tables by a number of the collective's and a root (0: none), for calls about which nothing has to be checked any more.
  // `apart`: not in place. While not `open`, none is found.
  void set_quick(u32 collective, u32 root, u32 table, bool apart) {
    const size_t key = size_t(collective) * nranks_ + root;
    if (quick_.size() <= key) quick_.resize(key + 1, {-1, false});
    quick_[key] = {int(table), apart};
  }
  // How long such a call waits without any progress.
  void set_timeout(u64 timeout_ns) { timeout_ns_ = timeout_ns; }
  u64 timeout_ns() const { return timeout_ns_; }
  u32 nranks() const { return nranks_; }
  void set_open(bool open) { open_ = open; }
  int quick(u32 collective, i64 root, bool in_place) const {
    const size_t key = size_t(collective) * nranks_ + size_t(root);
    if (!open_ || root < 0 || root >= i64(nranks_) || key >= quick_.size() || (in_place && quick_[key].apart)) return -1;
    return quick_[key].table;
  }

  View input_of(u32 table) const { return tables_[table].input; }
  View output_of(u32 table) const { return tables_[table].output; }

  // Which program the last call ran, and how often it was called.
  u32 last() const { return last_; }
  u64 calls(u32 program) const { return programs_[program]->launch.epoch; }
  const Launch& launch(u32 program) const { return programs_[program]->launch; }

 private:
  // What was found of memory whose pages were looked at, in which call: the same is looked at once in so many.
  static constexpr u32 kLookEvery = 16, kRemembered = 8;
  struct LookedAt {
    u64 address = 0, nbytes = 0, call = 0;
    std::optional<u64> huge;
  };

  struct Program {
    Launch launch;
    std::string code;
    std::vector<ConnectionAddresses> connections;
    std::vector<BufferAddresses> buffers;
    std::vector<u64> cursors, credit;
    CallKind checked;  // the last kind that check_launch() has passed
    u64 chunk_bytes = 0;    // at most
    bool any_checked = false, pooled = false, reaches = false, reduces = false;  // whether it uses other ranks' buffers, and adds up
  };
  // Calls of about one size that there are several programs for. All ranks have the same, but for what calls took them.
  struct Tuned {
    std::map<u64, Choice> choices;  // by what the ranks' buffers are like: what pages they lie in, and whether input and output are one
    Choice* choice = nullptr;       // of the run of calls that is under way
    u64 made = 0, left = 0;         // its calls
    u64 took = 0;                   // what its first one cost this rank or, where ranks are crowded, all of them
  };
  struct Table {
    View input, output;
    std::vector<TableEntry> entries;
    u64 word;
    bool apart;
    void guess(u64 key, u64 buffers, Choice& choice) const;
    std::map<u64, Tuned> tuned;  // by entry, size and, where something is added up, what is
  };

  struct Quick {
    int table;
    bool apart;
  };

  void set(Program& program, u64 count, const CallKind& kind);
  bool run_in_bytes(u32 table, const UserBuffer& input, const UserBuffer* output, const CallKind& kind, u64 timeout_ns, Caller& caller);
  bool begin(u64 word, u64 timeout_ns, Caller& caller);
  bool start(Program& program, u64 word, Stores stores, u64 timeout_ns, Caller& caller);
  static void cut(Program& program, u64 nbytes, const TableEntry& entry);
  // Before a program whose slots lie in the pool. False where the call has to end.
  bool take_pool(u32 number, u64 timeout_ns, Caller& caller);
  // Begins another run of calls of about this size. False where the call has to end.
  bool choose(Table& table, u64 key, size_t first, const UserBuffers& buffers, const CallKind& kind, u64 nbytes, u64 word, u64 timeout_ns, Caller& caller);
  // What all ranks say, by rank; nothing where the call has to end.
  std::optional<std::vector<u64>> tell_all(u64 mine, u64 word, u64 timeout_ns, Caller& caller);
  // Where the whole of the input and of the output would begin.
  BufferAddresses wholes(const Table& table, const UserBuffer& input, const UserBuffer* output, u64 count, const CallKind& kind) const;
  // What kind of pages these buffers of the caller's lie in: two bits each.
  u32 pages_of(const UserBuffers& buffers, u32 elem_size);
  std::optional<u64> huge_bytes(u64 address, u64 nbytes);
  std::vector<char> copied_aside(const Table& table, const UserBuffers& buffers, u64 count, const CallKind& kind) const;
  u64 total_of(const Table& table, const UserBuffer& input, const UserBuffer* output, const CallKind& kind) const;
  u64 total(const Table& table, const UserBuffer& input, const UserBuffer* output) const;
  u64 uneven_total(const Table& table, const UserBuffer& input, const UserBuffer* output, const UnevenShards& shards) const;
  u64 whole(View view, const UserBuffer& buffer, u64 count, const CallKind& kind) const;

  bool collective() const { return watch_.boards && watch_.peer < 0; }

  Turn busy_;
  std::atomic<std::thread::id> owner_{};  // who has it
  bool closed_ = false;
  Watch watch_{nullptr};
  bool compared_ = false, fenced_ = false, crowded_ = false;
  std::vector<Quick> quick_;
  std::atomic<bool> open_{true};
  u64 timeout_ns_ = 0;
  u32 rank_, nranks_, last_ = 0;
  int barrier_ = -1, agreement_ = -1, pooled_ = -1;
  std::pair<u64, u64> fresh_pool_{0, 0};  // that no call has used: address and size
  std::vector<std::unique_ptr<Program>> programs_;
  std::vector<Table> tables_;
  std::vector<int> processes_;
  LookedAt looked_at_[kRemembered];
  u32 next_look_ = 0;
  u64 looking_calls_ = 0;  // in which pages mattered
};

}  // namespace blinkcoll
