// Which elements a (shard, share, iteration) means: the only place where offsets are computed.
//
// A buffer of `count` elements is cut into `nshards` shards, each shard into shares by weight (one a tree, or a part of a
// tree), each share into chunks (one an iteration). Shards are either ours to choose (ring blocks): then every boundary
// is a multiple of 16 bytes from the start of the buffer, except the very end. Or they are the caller's, one a rank
// (`equal_shards`, all-gather and its like): then each has exactly count / nshards elements, or what the launch's table
// `bounds` gives it, and boundaries within one are multiples of 16 bytes from its start. Empty shares and ragged tails are ordinary. The cut into shards and shares
// does not depend on chunk_bytes, so tuning the chunk size never changes the bits of a result.
#pragma once

#include "types.h"

namespace blinkcoll {

struct Range {
  u64 offset, length;  // elements
};

// Chunks of a share from which on their size depends on its number: the iteration more that it may take is one in many.
constexpr u64 kManyChunks = 64;

struct Loop {
  u64 chunk, iterations;  // elements of a full chunk, and how many chunks at most
};

struct Partition {
  u64 count;              // elements in the buffer, up to 2^40
  u64 chunk_bytes;        // the most bytes of a chunk
  u32 elem_size;          // bytes of an element
  u32 nshards, nshares;
  u32 equal_shards;       // not zero: shards are the caller's: exactly count / nshards elements, or as `bounds` has it
  const u32* cumulative;  // nshares + 1 cumulative weights, from 0, total below 2^31
  const u64* bounds;      // null, or nshards + 1 elements from 0 to count: where each of the caller's shards begins
  const u64* places;      // null, or where each shard begins in the output that holds it (all-to-all of unequal pieces)

  // The fewest elements that are a multiple of 16 bytes.
  BC_HD u64 unit() const {
    u32 a = 16, b = elem_size;
    while (b) {
      u32 r = a % b;
      a = b;
      b = r;
    }
    return 16 / a;
  }

  // floor(units * part / total) without overflow: part <= total < 2^31.
  BC_HD static u64 scaled(u64 units, u32 part, u32 total) {
    return units / total * part + units % total * part / total;
  }

  BC_HD static u64 divided_up(u64 elements, u64 u) { return elements / u + (elements % u != 0); }

  BC_HD static u64 least(u64 a, u64 b) { return a < b ? a : b; }

  BC_HD Range share_range(u32 shard, u32 share) const {
    return equal_shards ? share_of_equal_shard(shard, share) : share_of_aligned_shard(shard, share);
  }

  BC_HD Range share_of_equal_shard(u32 shard, u32 share) const {
    u64 begin = bounds ? bounds[shard] : shard * (count / nshards);
    u64 length = bounds ? bounds[shard + 1] - begin : count / nshards;
    u64 u = unit(), size = divided_up(length, u);
    u32 total = cumulative[nshares];
    u64 from = least(scaled(size, cumulative[share], total) * u, length);
    u64 to = least(scaled(size, cumulative[share + 1], total) * u, length);
    return {begin + from, to - from};
  }

  BC_HD Range share_of_aligned_shard(u32 shard, u32 share) const {
    u64 u = unit(), all = divided_up(count, u);
    u64 begin = scaled(all, shard, nshards);
    u64 size = scaled(all, shard + 1, nshards) - begin;
    u32 total = cumulative[nshares];
    u64 from = least((begin + scaled(size, cumulative[share], total)) * u, count);
    u64 to = least((begin + scaled(size, cumulative[share + 1], total)) * u, count);
    return {from, to - from};
  }

  // The most elements of a chunk, which a slot holds: chunk_bytes rounded down to 16-byte units, at least one unit.
  BC_HD u64 chunk_elements() const {
    u64 u = unit();
    u64 elements = chunk_bytes / elem_size / u * u;
    return elements ? elements : u;
  }

  // A share's chunk loop: elements of its full chunks, and iterations enough for its longest shard.
  //
  // Channels on one link whose chunks are equal stop at the same moments to synchronise, and the link rests meanwhile. So
  // where a share has many chunks they are up to 7/64 smaller than they may be, by the share's number, and the channels of
  // different shares drift apart.
  BC_HD Loop loop_of(u32 share) const {
    u64 longest = 0;
    for (u32 shard = 0; shard < nshards; shard++) {
      u64 length = share_range(shard, share).length;
      if (length > longest) longest = length;
    }
    u64 chunk = chunk_elements();
    if (longest / chunk >= kManyChunks) {
      u64 u = unit(), units = chunk / u;
      chunk = (units - units / 64 * (share * 5ull % 8)) * u;
    }
    return {chunk, divided_up(longest, chunk)};
  }

  BC_HD u64 iterations(u32 share) const { return loop_of(share).iterations; }

  // Chunk `iteration` of a share's range; empty past its end.
  BC_HD static Range chunk_of(const Range& whole, u64 chunk_elements, u64 iteration) {
    u64 begin = iteration * chunk_elements;
    if (begin >= whole.length) return {whole.offset + whole.length, 0};
    u64 left = whole.length - begin;
    return {whole.offset + begin, left < chunk_elements ? left : chunk_elements};
  }

  // Where a chunk of a shard lies in an output.
  BC_HD u64 output_offset(u32 shard, const Range& chunk) const {
    return places ? places[shard] + (chunk.offset - bounds[shard]) : chunk.offset;
  }

  BC_HD Range chunk_range(u32 shard, u32 share, u64 iteration) const {
    return chunk_of(share_range(shard, share), loop_of(share).chunk, iteration);
  }
};

}  // namespace blinkcoll
