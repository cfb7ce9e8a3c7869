#include "calls.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "blinkcoll/dispatch.h"
#include "host/callword.h"
#include "host/doorbell.h"
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

// What ranks tell each other when they choose: what calls cost, above so many bits about their buffers.
constexpr u32 kBuffersBits = 8;
// They choose anew after so much time (more where the ranks have to take turns on their cores for it), or so many calls: it takes some 0.5 to 2 us
// (some 20 where they take turns), so half a percent at most.
// An odd number, so that of calls of two kinds that take turns both are looked at.
constexpr double kRunNs = 400e3, kCrowdedRunNs = 4e6, kMostRun = 63, kMostTrial = 256, kMostCrowdedTrial = 32;
// A way on trial shows what it costs once it has been through all of its slots, of which each rank writes a part of the data to, twice.
constexpr u64 kTrialBytes = 8 << 20;
// Costs are nanoseconds for so many bytes, since sizes of a class differ.
constexpr u64 kCostBytes = 1 << 20, kMostCost = u64(1) << 40;

using Clock = std::chrono::steady_clock;

u64 cost_of(std::chrono::nanoseconds took, u64 nbytes) { return std::clamp<u64>(u64(double(took.count()) * kCostBytes / double(nbytes)), 1, kMostCost); }

// How many entries there are for the sizes that this one is for, which is the first of them.
u32 ways(const std::vector<TableEntry>& entries, size_t first) {
  size_t end = first + 1;
  while (end < entries.size() && entries[end].most_bytes == entries[first].most_bytes) end++;
  return u32(end - first);
}

// How many of them serve the call: those that pre-multiply come first.
u32 ways_for(const std::vector<TableEntry>& entries, size_t first, bool premultiplied) {
  u32 nways = ways(entries, first);
  while (premultiplied && nways > 1 && !entries[first + nways - 1].premultiplies) nways--;
  return nways;
}

// The first one for that size, or, where the call has factors that it can do nothing with, for the next smaller ones that can.
size_t entry_for(const std::vector<TableEntry>& entries, u64 nbytes, bool premultiplied) {
  size_t i = 0, before = 0;
  for (u32 n = ways(entries, 0); i + n < entries.size() && nbytes > entries[i].most_bytes; n = ways(entries, i)) {
    if (entries[i].premultiplies) before = i;
    i += n;
  }
  return premultiplied && !entries[i].premultiplies ? before : i;
}

// Two classes for each doubling.
u32 size_class(u64 nbytes) {
  const u32 top = nbytes > 1 ? 63 - u32(__builtin_clzll(nbytes)) : 1;
  return 2 * top + u32(nbytes >> (top - 1) & 1);
}

// Of memory that is reserved but that this process has not touched: each would cost a fault (the first MiB through fresh slots 520 us, each that follows 40).
// Kernels before 5.14 refuse; there they do.
void map_pages(const std::pair<u64, u64>& memory) {
#if defined(__linux__)
  constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, which older headers do not name
  madvise(pointer<void>(memory.first), memory.second, kPopulateWrite);
#else
  (void)memory;
#endif
}

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
  made->chunk_bytes = launch.chunk_bytes;
  made->reaches = launch.buffers != 0;
  const ProgramView view{made->code.data()};
  for (u32 s = 0; s < view.header().nsteps; s++) made->reduces |= view.step(s).op == kReduce;
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

u32 HostCalls::add_table(View input, View output, std::vector<TableEntry> entries, u64 word, bool apart) {
  if (entries.empty()) throw std::invalid_argument("a table needs at least one program");
  tables_.push_back({input, output, std::move(entries), word, apart, {}});
  return u32(tables_.size() - 1);
}

// From what is known of calls that are alike but for their size, of up to four times it; or else also for their buffers.
void HostCalls::Table::guess(u64 key, u64 buffers, Choice& choice) const {
  const Choice* other = nullptr;
  for (u64 distance = 0; distance <= 4; distance++) {
    for (u64 near : {key - distance, key + distance}) {
      const auto at = tuned.find(near);
      if (at == tuned.end()) continue;
      for (const auto& [kind, known] : at->second.choices) {
        if (!known.complete()) continue;
        if (kind == buffers) {
          choice = known.of_others();
          return;
        }
        if (!other) other = &known;
      }
    }
  }
  if (other) choice = other->of_others(false);
}

// The collective's size in elements, from whichever buffer this rank has.
u64 HostCalls::total(const Table& table, const UserBuffer& input, const UserBuffer* output) const {
  const ProgramView program{programs_[table.entries[0].program]->code.data()};
  auto of = [&](View view, const UserBuffer& buffer) {
    if (view == View::kWhole && program.header().equal_shards && buffer.count % nranks_ != 0)
      throw std::invalid_argument(std::to_string(buffer.count) + " elements are no equal parts for " + std::to_string(nranks_) + " ranks; counts say how large others are");
    return view == View::kOwn ? buffer.count * nranks_ : buffer.count;
  };
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

u64 HostCalls::total_of(const Table& table, const UserBuffer& input, const UserBuffer* output, const CallKind& kind) const {
  if (table.input == View::kRow && !kind.shards) throw std::invalid_argument("this collective needs counts");
  return kind.shards ? uneven_total(table, input, output, *kind.shards) : total(table, input, output);
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

// Where they touch each other but are not one, or would be one to programs that need them apart: a copy of the input, to be taken in its place.
std::vector<char> HostCalls::copied_aside(const Table& table, const UserBuffers& buffers, u64 count, const CallKind& kind) const {
  if (!buffers.output) return {};
  const u64 from = buffers.input.address, to = buffers.output->address, read = buffers.input.count * kind.elem_size, written = buffers.output->count * kind.elem_size;
  const BufferAddresses begins = wholes(table, buffers.input, buffers.output, count, kind);
  if (from >= to + written || to >= from + read || (!table.apart && begins.buffer[kInput] == begins.buffer[kOutput])) return {};
  const char* const begin = pointer<const char>(from);
  return {begin, begin + read};
}

// Elements that are only moved: slots might not hold the fewest that end with 16 bytes (partition.h), and equal words of calls are to mean equal chunks.
bool HostCalls::run_in_bytes(u32 table, const UserBuffer& input, const UserBuffer* output, const CallKind& kind, u64 timeout_ns, Caller& caller) {
  const Table& t = tables_.at(table);
  total_of(t, input, output, kind);  // so that it is told in elements what does not fit
  CallKind bytes = kind;
  bytes.elem_size = 1;
  UserBuffer from = input, to = output ? *output : UserBuffer{};
  from.count *= kind.elem_size, to.count *= kind.elem_size;
  std::vector<u64> bounds, places;
  UnevenShards shards{};
  if (kind.shards) {
    const u64 nshards = t.input == View::kRow ? u64(nranks_) * nranks_ : nranks_;
    for (u64 i = 0; i <= nshards; i++) bounds.push_back(kind.shards->bounds[i] * kind.elem_size);
    for (u64 i = 0; kind.shards->places && i < nshards; i++) places.push_back(kind.shards->places[i] * kind.elem_size);
    shards = {bounds.data(), places.empty() ? nullptr : places.data()};
    bytes.shards = &shards;
  }
  return run(table, from, output ? &to : nullptr, bytes, timeout_ns, caller);
}

bool HostCalls::run(u32 table, const UserBuffer& input, const UserBuffer* output, const CallKind& kind, u64 timeout_ns, Caller& caller) {
  if (kind.dtype == kOpaque && kind.elem_size > 1) return run_in_bytes(table, input, output, kind, timeout_ns, caller);
  if (inside()) throw std::invalid_argument("it is called in the middle of another call of this communicator, by a signal's handler");
  std::unique_lock<Turn> turn(busy_, std::try_to_lock);
  if (!turn) {  // whose call it is may want the caller's lock before it ends
    caller.takes_long();
    turn.lock();
  }
  if (closed_) throw std::invalid_argument("this communicator was closed meanwhile");
  const Owned owned(owner_);
  Table& t = tables_.at(table);
  const u64 count = total_of(t, input, output, kind), nbytes = count * kind.elem_size;
  if (nbytes > kShortBytes) caller.takes_long();
  size_t i = entry_for(t.entries, nbytes, kind.premultiplied);
  u32 number = t.entries[i].program;
  set(*programs_[number], count, kind);
  const u64 word = call_word(t.word, kind.dtype, kind.elem_size, kind.premultiplied ? kPremultiplied : kind.op, kind.divisor, count);
  last_ = number;
  if (!begin(word, timeout_ns, caller)) return false;
  Tuned* tuned = nullptr;
  if (ways_for(t.entries, i, kind.premultiplied) > 1 && agreement_ >= 0) {
    const u64 sum = programs_[number]->reduces ? kind.dtype << 8 | kind.op << 16 | u32(kind.premultiplied) << 24 : 0;
    const u64 key = u64(i) << 32 | sum | size_class(nbytes);
    tuned = &t.tuned[key];
    if (tuned->left == 0 && !choose(t, key, i, {input, output}, kind, nbytes, word, timeout_ns, caller)) return false;
    i += tuned->choice->way();
    last_ = number = t.entries[i].program;
    set(*programs_[number], count, kind);
  }
  Program& program = *programs_[number];
  if (program.pooled && !take_pool(number, timeout_ns, caller)) return false;
  BufferAddresses& mine = pointer<BufferAddresses>(program.launch.buffers)[rank_];
  const std::vector<char> aside = copied_aside(t, {input, output}, count, kind);
  const BufferAddresses begins = wholes(t, aside.empty() ? input : UserBuffer{u64(aside.data()), input.count}, output, count, kind);
  mine.buffer[kInput] = begins.buffer[kInput];
  mine.buffer[kOutput] = begins.buffer[kOutput];
  cut(program, nbytes, t.entries[i]);
  // Of calls of ranks that have a core each the first one counts: all had just begun, so nobody waited for who came late. Others wait for their turns in any case.
  const bool counts = tuned && (crowded_ || tuned->made == 0);
  const Clock::time_point began = counts ? Clock::now() : Clock::time_point();
  if (!start(program, word, t.entries[i].stores, timeout_ns, caller)) return false;
  if (counts) tuned->took += cost_of(Clock::now() - began, nbytes);
  if (tuned) tuned->made++, tuned->left--;
  if (!collective()) return true;
  // Nothing is returned of a call in which a rank has died: another process may have got its number, and its memory been
  // read, or written, in good faith.
  if (watch_.boards->alarmed() && watch_.boards->must_leave()) return false;
  watch_.boards->end();
  return true;
}

bool HostCalls::take_pool(u32 number, u64 timeout_ns, Caller& caller) {
  if (fresh_pool_.second) map_pages(std::exchange(fresh_pool_, {0, 0}));
  if (pooled_ >= 0 && pooled_ != int(number) && barrier_ >= 0) {
    Program& barrier = *programs_[size_t(barrier_)];
    last_ = u32(barrier_);
    set(barrier, 1, CallKind{});
    if (!start(barrier, 0, kThroughCaches, timeout_ns, caller)) return false;
  }
  pooled_ = int(number);
  last_ = number;
  return true;
}

// How much of a buffer lies in huge pages: little, some, most, or (almost) all.
u32 HostCalls::pages_of(const UserBuffers& buffers, u32 elem_size) {
  looking_calls_++;
  auto of = [&](const UserBuffer& buffer) {
    const u64 nbytes = buffer.count * elem_size, percent = nbytes ? huge_bytes(buffer.address, nbytes).value_or(0) * 100 / nbytes : 0;
    return u32(percent >= 30) + (percent >= 60) + (percent >= 90);
  };
  return of(buffers.input) | (buffers.output ? of(*buffers.output) << 2 : 0);
}

std::optional<u64> HostCalls::huge_bytes(u64 address, u64 nbytes) {
  if (nbytes == 0) return 0;
  LookedAt* at = std::find_if(looked_at_, looked_at_ + kRemembered, [&](const LookedAt& one) { return one.address == address && one.nbytes == nbytes; });
  if (at != looked_at_ + kRemembered && looking_calls_ - at->call < kLookEvery) return at->huge;
  if (at == looked_at_ + kRemembered) at = &looked_at_[next_look_++ % kRemembered];
  *at = {address, nbytes, looking_calls_, huge_bytes_of(address, nbytes)};
  return at->huge;
}

bool HostCalls::choose(Table& table, u64 key, size_t first, const UserBuffers& buffers, const CallKind& kind, u64 nbytes, u64 word, u64 timeout_ns, Caller& caller) {
  Tuned& tuned = table.tuned[key];
  const u32 nways = ways_for(table.entries, first, kind.premultiplied);
  bool reaches = false;
  for (size_t i = first; i < first + nways; i++) reaches |= programs_[table.entries[i].program]->reaches;
  const u64 mine = u64(!buffers.output) << 4 | (reaches ? pages_of(buffers, kind.elem_size) : 0);
  const u64 took = tuned.took / (crowded_ ? std::max<u64>(tuned.made, 1) : 1);
  const std::optional<std::vector<u64>> said = tell_all(took << kBuffersBits | mine, word, timeout_ns, caller);
  if (!said) return false;
  u64 slowest = 0, everyones = nranks_ > 2 ? ~u64(0) : 0;
  for (u64 one : *said) {
    slowest = std::max(slowest, one >> kBuffersBits);
    const u64 its = one & ((1 << kBuffersBits) - 1);
    everyones = nranks_ > 2 ? std::min(everyones, its & 3) : everyones << kBuffersBits | its;  // of more ranks there would be too many kinds
  }
  if (tuned.made) tuned.choice->learn(slowest, tuned.made);
  const auto [at, is_new] = tuned.choices.try_emplace(everyones, nways, nbytes >= kTrialBytes);
  if (is_new) table.guess(key, everyones, at->second);
  tuned.choice = &at->second;
  const double call_ns = double(tuned.choice->cost()) * double(nbytes) / kCostBytes, run_ns = crowded_ ? kCrowdedRunNs : kRunNs;
  const double trial = std::min(double(kTrialBytes) / double(nbytes), crowded_ ? kMostCrowdedTrial : kMostTrial);
  const double run = call_ns > 0 ? std::min(run_ns / call_ns, kMostRun) : crowded_ || tuned.choice->goes_on() ? trial : 1;
  tuned.left = u64(std::max(run, 1.0));
  tuned.made = tuned.took = 0;
  return true;
}

std::optional<std::vector<u64>> HostCalls::tell_all(u64 mine, u64 word, u64 timeout_ns, Caller& caller) {
  std::vector<u64> said(nranks_, 0);
  said[rank_] = mine;
  last_ = u32(agreement_);
  Program& agreement = *programs_[last_];
  set(agreement, nranks_, CallKind{kInt64, sizeof(u64)});
  BufferAddresses& buffers = pointer<BufferAddresses>(agreement.launch.buffers)[rank_];
  buffers.buffer[kInput] = buffers.buffer[kOutput] = u64(said.data());
  if (!start(agreement, word, kThroughCaches, timeout_ns, caller)) return std::nullopt;
  return said;
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

// Into chunks: as large as slots allow, or several a call, so that one is read while the next is written.
void HostCalls::cut(Program& program, u64 nbytes, const TableEntry& entry) {
  Launch& launch = program.launch;
  const u64 least = std::min(kLeastSpread, program.chunk_bytes), most = std::min(kMostSpread, program.chunk_bytes);
  const u64 nchunks = entry.stores & kSlotsPast ? kSpreadChunksPast : kSpreadChunks;
  launch.chunk_bytes = entry.spread ? std::clamp(nbytes / nchunks / kLineBytes * kLineBytes, least, most) : program.chunk_bytes;
  launch.spots = entry.spread ? launch.slot_bytes / (launch.chunk_bytes + kLineBytes) : 1;
}

bool HostCalls::begin(u64 word, u64 timeout_ns, Caller& caller) {
  if (!collective()) return true;
  return watch_.boards->begin(word) && (!compared_ || watch_.boards->assemble(timeout_ns, caller));
}

bool HostCalls::start(Program& program, u64 word, Stores stores, u64 timeout_ns, Caller& caller) {
  program.launch.timeout_ns = timeout_ns;
  program.launch.epoch++;
  return run_checked(program.launch, {processes_.empty() ? nullptr : processes_.data(), word, watch_.boards ? &watch_ : nullptr, program.credit.data(), fenced_, crowded_, &caller, stores});
}

void HostCalls::announce(u64 word) {
  std::lock_guard<Turn> turn(busy_);
  if (collective()) watch_.boards->announce(word);
}

void HostCalls::cancel() {
  std::lock_guard<Turn> turn(busy_);
  if (collective()) watch_.boards->cancel();
}

void HostCalls::wake() const {
  for (const auto& program : programs_)
    if (program->launch.doorbell) ring(pointer<u32>(program->launch.doorbell));
}

}  // namespace blinkcoll
