#include "calls.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "blinkcoll/dispatch.h"
#include "host/callword.h"
#include "host/doorbell.h"
#include "host/nearness.h"
#include "host/pages.h"
#include "host/platform.h"
#include "host/run.h"

namespace blinkcoll {
namespace {

// What the one buffer of a call in place holds.
View held(View input, View output) {
  return input == View::kWhole || output == View::kWhole ? View::kWhole : input == View::kNone ? output : input;
}

// What is moved while the caller holds its locks, at most: a few microseconds' worth.
constexpr u64 kShortBytes = 16 << 10;

// Says whose call is under way, for as long as it is.
class Owned {
 public:
  explicit Owned(std::atomic<std::thread::id>& owner) : owner_(owner) { owner_.store(std::this_thread::get_id(), std::memory_order_relaxed); }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() { owner_.store({}, std::memory_order_relaxed); }

 private:
  std::atomic<std::thread::id>& owner_;
};

bool same(const CallKind& a, const CallKind& b) {
  return a.dtype == b.dtype && a.op == b.op && a.elem_size == b.elem_size && (a.divisor != 1) == (b.divisor != 1) && (a.prescale != 1) == (b.prescale != 1);
}

}  // namespace

u32 HostCalls::add_program(const Launch& launch, std::string code, const std::string& connections, bool pooled) {
  auto made = std::make_unique<Program>();
  made->code = std::move(code);
  made->connections.resize(connections.size() / sizeof(ConnectionAddresses));
  std::memcpy(made->connections.data(), connections.data(), made->connections.size() * sizeof(ConnectionAddresses));
  made->buffers.resize(nranks_);
  made->cursors.resize(made->connections.size());
  made->credit.resize(made->connections.size());
  made->pooled = pooled;
  // Of programs that use others' buffers, peers wrote what is looked at a call ago: it tells where lines go meanwhile, not how near peers are.
  made->timed_bytes = launch.buffers ? kNeverTimed : kTimedBytes;
  find_reached(*made);
  Launch& mine = made->launch = launch;
  mine.program = u64(made->code.data());
  mine.connections = u64(made->connections.data());
  if (!mine.buffers) mine.buffers = u64(made->buffers.data());
  mine.cursors = u64(made->cursors.data());
  mine.rank = rank_;
  mine.epoch = 0;
  programs_.push_back(std::move(made));
  return u32(programs_.size() - 1);
}

u32 HostCalls::add_table(View input, View output, std::vector<TableEntry> entries, u64 word) {
  if (entries.empty()) throw std::invalid_argument("a table needs at least one program");
  tables_.push_back({input, output, std::move(entries), word});
  return u32(tables_.size() - 1);
}

// The collective's size in elements, from whichever buffer this rank has.
u64 HostCalls::total(const Table& table, const UserBuffer& input, const UserBuffer* output) const {
  auto of = [&](View view, const UserBuffer& buffer) { return view == View::kOwn ? buffer.count * nranks_ : buffer.count; };
  if (!output) return of(held(table.input, table.output), input);
  if (table.input == View::kNone) return of(table.output, *output);
  const u64 count = of(table.input, input);
  if (table.output != View::kNone && of(table.output, *output) != count) throw std::invalid_argument("input and output do not fit each other");
  return count;
}

// The same where the call says how large shards are; buffers have to be of just that size.
u64 HostCalls::uneven_total(const Table& table, const UserBuffer& input, const UserBuffer* output, const UnevenShards& shards) const {
  const u64 n = nranks_, *bounds = shards.bounds;
  auto check = [&](const char* name, View view, u64 count) {
    u64 wanted = 0;
    switch (view) {
      case View::kNone: return;
      case View::kOwn: wanted = bounds[rank_ + 1] - bounds[rank_]; break;
      case View::kWhole: wanted = bounds[n]; break;
      case View::kRow: wanted = bounds[(rank_ + 1) * n] - bounds[rank_ * n]; break;
      case View::kColumn:
        for (u64 a = 0; a < n; a++) wanted += bounds[a * n + rank_ + 1] - bounds[a * n + rank_];
    }
    if (count != wanted) throw std::invalid_argument(std::string(name) + " has " + std::to_string(count) + " elements, counts say " + std::to_string(wanted));
  };
  if (output) {
    check("array", table.input, input.count);
    check("out", table.output, output->count);
  } else {
    check("array", held(table.input, table.output), input.count);
  }
  return bounds[table.input == View::kRow ? n * n : n];
}

// Where the whole of the data would begin; the sum wraps around where that is before 0.
u64 HostCalls::whole(View view, const UserBuffer& buffer, u64 count, const CallKind& kind) const {
  u64 first = 0;  // element of the whole that the buffer begins with
  if (view == View::kOwn) first = kind.shards ? kind.shards->bounds[rank_] : rank_ * (count / nranks_);
  if (view == View::kRow) first = kind.shards->bounds[u64(rank_) * nranks_];
  return buffer.address - first * kind.elem_size;
}

BufferAddresses HostCalls::wholes(const Table& table, const UserBuffer& input, const UserBuffer* output, u64 count, const CallKind& kind) const {
  const u64 begin = whole(output ? table.input : held(table.input, table.output), input, count, kind);
  return {{begin, output ? whole(table.output, *output, count, kind) : begin, 0}};
}

bool HostCalls::run(u32 table, const UserBuffer& input, const UserBuffer* output, const CallKind& kind, u64 timeout_ns, Caller& caller) {
  if (inside()) throw std::invalid_argument("it is called in the middle of another call of this communicator, by a signal's handler");
  std::unique_lock<std::mutex> turn(busy_, std::try_to_lock);
  if (!turn) {  // whose call it is may want the caller's lock before it ends
    caller.takes_long();
    turn.lock();
  }
  if (closed_) throw std::invalid_argument("this communicator was closed meanwhile");
  const Owned owned(owner_);
  const Table& t = tables_.at(table);
  if (t.input == View::kRow && !kind.shards) throw std::invalid_argument("this collective needs counts");
  const u64 count = kind.shards ? uneven_total(t, input, output, *kind.shards) : total(t, input, output), nbytes = count * kind.elem_size;
  if (nbytes > kShortBytes) caller.takes_long();
  size_t i = 0;
  while (i + 1 < t.entries.size() && nbytes > t.entries[i].most_bytes) i++;
  while (kind.premultiplied && i > 0 && !t.entries[i].premultiplies) i--;
  u32 number = t.entries[i].program;
  set(*programs_[number], count, kind);
  const u64 word = call_word(t.word, kind.dtype, kind.elem_size, kind.premultiplied ? kPremultiplied : kind.op, kind.divisor, count);
  last_ = number;
  if (!begin(word, timeout_ns, caller)) return false;
  const BufferAddresses begins = wholes(t, input, output, count, kind);
  if (const size_t first = i; i > 0 && agreement_ >= 0 && t.entries[i].conditional()) {
    const bool timed = std::any_of(t.entries.begin() + i64(i), t.entries.end(),
                                   [nbytes](const TableEntry& e) { return nbytes <= e.most_bytes && e.least_huge(nbytes, false) != e.least_huge(nbytes, true); });
    const std::optional<u8> served = in_common(served_by(t, i, begins, count, kind), timed, word, timeout_ns, caller);
    if (!served) return false;
    if (*served) {
      while (!(*served >> (i - first) & 1)) i++;
    } else {
      while (i > 0 && t.entries[i].conditional()) i--;
    }
    last_ = number = t.entries[i].program;
    set(*programs_[number], count, kind);
  }
  Program& program = *programs_[number];
  if (program.pooled && pooled_ != int(number)) {
    if (pooled_ >= 0 && barrier_ >= 0) {
      Program& barrier = *programs_[size_t(barrier_)];
      last_ = u32(barrier_);
      set(barrier, 1, CallKind{});
      if (!start(barrier, 0, timeout_ns, caller)) return false;
    }
    pooled_ = int(number);
    last_ = number;
  }
  BufferAddresses& mine = pointer<BufferAddresses>(program.launch.buffers)[rank_];
  mine.buffer[kInput] = begins.buffer[kInput];
  mine.buffer[kOutput] = begins.buffer[kOutput];
  if (!start(program, word, timeout_ns, caller)) return false;
  if (!collective()) return true;
  // Nothing is returned of a call in which a rank has died: another process may have got its number, and its memory been
  // read, or written, in good faith.
  if (watch_.boards->alarmed() && watch_.boards->must_leave()) return false;
  watch_.boards->end();
  return true;
}

void HostCalls::find_reached(Program& program) const {
  const ProgramView view{program.code.data()};
  for (u32 r = 0; r < view.header().nranks; r++) {
    const RankEntry& of = view.rank(r);
    for (u32 c = of.first_channel; r != rank_ && c < of.first_channel + of.nchannels; c++) {
      for (u32 s = 0; s < view.channel(c).nsteps; s++) {
        const StepEntry& step = view.step(view.channel(c).first_step + s);
        for (u32 i = 0; i < u32(step.nsrcs) + step.ndsts; i++) {
          const OperandEntry& operand = view.operands(step.first_operand)[i];
          if (operand.buffer > kOutput || operand.index != rank_) continue;
          Reached& reached = program.reached[operand.buffer];
          const u32 shard = operand.use ? operand.use - 1 : step.shard;
          reached = reached.end ? Reached{std::min(reached.first, shard), std::max(reached.end, shard + 1)} : Reached{shard, shard + 1};
        }
      }
    }
  }
}

std::optional<u32> HostCalls::reached_huge(const Program& program, const BufferAddresses& wholes, u64 count, const CallKind& kind) {
  const u64 nshards = ProgramView{program.code.data()}.header().nshards;
  u64 all = 0, huge = 0;
  for (u32 buffer : {kInput, kOutput}) {
    const Reached& reached = program.reached[buffer];
    if (!reached.end) continue;
    const u64 first = kind.shards ? kind.shards->bounds[reached.first] : reached.first * (count / nshards);
    const u64 end = kind.shards ? kind.shards->bounds[reached.end] : reached.end * (count / nshards);
    const u64 address = wholes.buffer[buffer] + first * kind.elem_size, nbytes = (end - first) * kind.elem_size;
    const std::optional<u64> found = huge_bytes(address, nbytes);
    if (!found) return std::nullopt;
    all += nbytes, huge += *found;
  }
  return all ? u32(huge * 100 / all) : 100;
}

std::optional<u64> HostCalls::huge_bytes(u64 address, u64 nbytes) {
  if (nbytes == 0) return 0;
  LookedAt* at = std::find_if(looked_at_, looked_at_ + kRemembered, [&](const LookedAt& one) { return one.address == address && one.nbytes == nbytes; });
  if (at != looked_at_ + kRemembered && looking_calls_ - at->call < kLookEvery) return at->huge;
  if (at == looked_at_ + kRemembered) at = &looked_at_[next_look_++ % kRemembered];
  *at = {address, nbytes, looking_calls_, huge_bytes_of(address, nbytes)};
  return at->huge;
}

u8 HostCalls::served_by(const Table& table, size_t first, const BufferAddresses& wholes, u64 count, const CallKind& kind) {
  const u64 nbytes = count * kind.elem_size;
  looking_calls_++;
  u8 served = 0;
  for (size_t i = first; i < table.entries.size() && i < first + 8; i++) {
    const TableEntry& entry = table.entries[i];
    if (i > first && nbytes > entry.most_bytes) continue;
    const u32 least = entry.least_huge(nbytes, nearness().far());
    if (least >= TableEntry::kNever) continue;
    const std::optional<u32> huge = reached_huge(*programs_[entry.program], wholes, count, kind);
    served |= u8((huge ? *huge >= least : entry.blind) << (i - first));
  }
  return served;
}

std::optional<u8> HostCalls::in_common(u8 mine, bool timed, u64 word, u64 timeout_ns, Caller& caller) {
  std::vector<u8> said(nranks_, 0);
  said[rank_] = mine;
  last_ = u32(agreement_);
  Program& agreement = *programs_[last_];
  set(agreement, nranks_, CallKind{kUInt8, 1});
  BufferAddresses& buffers = pointer<BufferAddresses>(agreement.launch.buffers)[rank_];
  buffers.buffer[kInput] = buffers.buffer[kOutput] = u64(said.data());
  agreement.timed_bytes = kNeverTimed;
  if (!start(agreement, word, timeout_ns, caller)) return std::nullopt;
  agreement.timed_bytes = 0;  // peers have just written what is looked at now, whose time so tells how near they are
  if (timed && !start(agreement, word, timeout_ns, caller)) return std::nullopt;
  u8 common = 0xff;
  for (u8 bits : said) common &= bits;
  return common;
}

// What is to be run. Throws where it cannot be: before anybody is told of the call, since all of a table's programs can do what one of them can.
void HostCalls::set(Program& program, u64 count, const CallKind& kind) {
  Launch& launch = program.launch;
  launch.count = count;
  launch.elem_size = kind.elem_size;
  launch.dtype = kind.dtype;
  launch.op = kind.op;
  launch.divisor = kind.divisor;
  launch.prescale = kind.prescale;
  launch.bounds = kind.shards ? u64(kind.shards->bounds) : 0;
  launch.places = kind.shards ? u64(kind.shards->places) : 0;
  if (program.any_checked && same(program.checked, kind)) return;
  check_launch(launch);
  program.checked = kind;
  program.any_checked = true;
}

bool HostCalls::begin(u64 word, u64 timeout_ns, Caller& caller) {
  if (!collective()) return true;
  return watch_.boards->begin(word) && (!compared_ || watch_.boards->assemble(timeout_ns, caller));
}

bool HostCalls::start(Program& program, u64 word, u64 timeout_ns, Caller& caller) {
  program.launch.timeout_ns = timeout_ns;
  program.launch.epoch++;
  return run_checked(program.launch, {processes_.empty() ? nullptr : processes_.data(), word, watch_.boards ? &watch_ : nullptr, program.credit.data(), fenced_, crowded_, &caller, program.timed_bytes});
}

void HostCalls::announce(u64 word) {
  std::lock_guard<std::mutex> turn(busy_);
  if (collective()) watch_.boards->announce(word);
}

void HostCalls::cancel() {
  std::lock_guard<std::mutex> turn(busy_);
  if (collective()) watch_.boards->cancel();
}

void HostCalls::wake() const {
  for (const auto& program : programs_)
    if (program->launch.doorbell) ring(pointer<u32>(program->launch.doorbell));
}

}  // namespace blinkcoll
