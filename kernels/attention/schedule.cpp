#include "tilegrad/kernels/attention/schedule.h"

#include <limits>

#include "tilegrad/kernels/parallel.h"

namespace tilegrad::kernels {

namespace {

// Tiles are halved while there are fewer tasks than this.
constexpr Index kTasks = 16;

Index halved_for_tasks(Index size, Index least, Index rows, Index heads) {
  while (size > least && heads * ceil_div(rows, size) < kTasks) size /= 2;
  return size;
}

TileSizes chosen(const TileSizes& best, const ProblemShape& shape, Index queries) {
  const Index q = shape.tiles.queries > 0 ? shape.tiles.queries : best.queries;
  const Index k = shape.tiles.keys > 0 ? shape.tiles.keys : best.keys;
  return {.queries = std::clamp<Index>(q, 1, std::max<Index>(queries, 1)),
          .keys = std::min(k, std::max<Index>(shape.tk, 1))};
}

// A panel of queries and its scores stay in the first-level cache, and a tile of keys and values in the second-level
// cache, while all panels of a task pass over it.
//
// With 32 registers and wide vectors a panel has many queries, and 128 of each serve all head sizes; larger ones need
// more queries, so that a tile of keys is reused often enough. With 16 registers a panel has half as many queries, and
// each of its passes over the keys costs more: so twice as many queries share a tile, and the more keys it has, the
// rarer do O, m and l change. The scores of 192 keys, a multiple of the 6 rows of a product, are 12 KiB; for large heads
// K and V are kept to 192 KiB, well below the 512 KiB that most processors with AVX2 have.
//
// These are constants, and not read from the machine, so that a result is the same wherever its SIMD target runs.
TileSizes forward_tile(const ProblemShape& shape, const MicroKernel& kernel) {
  const Index dim = std::max(shape.dim, shape.dim_v), longest = shape.longest_queries();
  TileSizes best = {.queries = dim > 256 ? 512 : dim > 128 ? 256 : 128, .keys = dim > 256 ? 64 : 128};
  if (kernel.few_registers) {
    constexpr Index kKeyBytes = 192 * 1024, kStep = 48;
    const Index keys = kKeyBytes / std::max<Index>(2 * dim * kernel.element_bytes, 1);
    best = {.queries = dim > 256 ? 512 : 256, .keys = std::clamp<Index>(keys / kStep * kStep, kStep, 192)};
  }
  best.queries = halved_for_tasks(best.queries, 64, longest, shape.batch * shape.heads);
  return chosen(best, shape, longest);
}

// The panels of a task's keys are read and added to for every tile of queries. With 16 registers few queries at a time,
// whose Q and dO stay in the first-level cache for all panels, and many keys, so that dQ is seldom read and written.
// Short sequences take 64 queries, which divide them.
TileSizes backward_tile(const ProblemShape& shape, const MicroKernel& kernel) {
  const Index size = std::max(shape.dim, shape.dim_v) > 256 ? 256 : shape.tk <= 256 ? 64 : 128;
  TileSizes best = {.queries = size, .keys = size};
  if (kernel.few_registers)
    best = {.queries = shape.tq <= 256 ? 64 : 48,
            .keys = halved_for_tasks(256, 64, shape.tk, shape.batch * shape.kv_heads)};
  return chosen(best, shape, shape.tq);
}

}  // namespace

Index ProblemShape::longest_queries() const {
  Index longest = 0;
  for (const Sequence& s : sequences) longest = std::max(longest, s.tq);
  return longest;
}

std::vector<Sequence> find_sequences(const ProblemShape& shape, const AttentionOptions& options,
                                     std::span<const std::int32_t> k_lengths,
                                     std::span<const std::int32_t> cu_q, std::span<const std::int32_t> cu_k) {
  constexpr Index kUnbounded = std::numeric_limits<Index>::max() / 4;
  const Index left = std::min(options.window.left.value_or(kUnbounded), kUnbounded);
  const Index right = std::min(options.window.right.value_or(kUnbounded), kUnbounded);
  std::vector<Sequence> sequences;
  const auto add = [&](Index b, Range q, Range k) {
    const Index offset = options.align == Align::bottom_right ? k.size() - q.size() : 0;
    sequences.push_back({.b = b,
                         .q0 = q.begin,
                         .tq = q.size(),
                         .k0 = k.begin,
                         .tk = k.size(),
                         .shift = offset + k.begin - q.begin,
                         .left = left,
                         .right = options.causal ? std::min<Index>(right, 0) : right});
  };
  if (cu_q.empty()) {
    for (Index b = 0; b < shape.batch; ++b)
      add(b, {0, shape.tq}, {0, k_lengths.empty() ? shape.tk : k_lengths[b]});
  }
  for (Index n = 0; n + 1 < std::ssize(cu_q); ++n) add(0, {cu_q[n], cu_q[n + 1]}, {cu_k[n], cu_k[n + 1]});
  return sequences;
}

std::vector<SequenceTile> tiles_of(const std::vector<Sequence>& sequences, Range (Sequence::*rows)() const,
                                   Index size) {
  std::vector<SequenceTile> tiles;
  for (Index s = 0; s < std::ssize(sequences); ++s) {
    const Range all = (sequences[s].*rows)();
    const Index count = ceil_div(all.size(), size), first = std::ssize(tiles);
    for (Index n = 0; n < count; ++n) {
      const Index begin = all.begin + n * size;
      tiles.push_back({.sequence = s,
                       .index = n,
                       .tiles_in_sequence = count,
                       .first_tile = first,
                       .rows = {begin, std::min(begin + size, all.end)}});
    }
  }
  return tiles;
}

Index num_splits(Index tasks, Index keys) {
  constexpr Index kKeys = 128;
  return std::clamp<Index>(std::min(kTasks / std::max<Index>(tasks, 1), keys / kKeys), 1, kTasks);
}
Range split_of(Range keys, Index split, Index splits) {
  const Index size = std::max<Index>(keys.size(), 0);
  return {keys.begin + size * split / splits, keys.begin + size * (split + 1) / splits};
}

void OrderedAdds::wait(const Ticket& ticket) const {
  spin_until([&] { return done_[ticket.tile].load(std::memory_order_acquire) == ticket.number; });
}

// Forward
// ------------------------------------------------------------------------------------------------------

ForwardSchedule::ForwardSchedule(const ProblemShape& shape, const MicroKernel& kernel)
    : shape_(shape), tile_(forward_tile(shape, kernel)) {
  panels_ = ceil_div(tile_.queries, kernel.lanes);
  heads_per_panel_ = std::clamp<Index>(kernel.lanes / tile_.queries, 1, shape.group_size());
  head_blocks_ = shape.kv_heads * ceil_div(shape.group_size(), heads_per_panel_);
  query_tiles_ = tiles_of(shape.sequences, &Sequence::queries, tile_.queries);
  splits_ = panels_ > 1 ? 1 : num_splits(tasks(), shape.tk);
}

// The tiles of a head follow each other, because they share K and V. Its last tile comes first: under a
// causal mask it has the most work.
ForwardSchedule::Task ForwardSchedule::task(Index n) const {
  const SequenceTile& any_of_sequence = query_tiles_[n / head_blocks_];
  const Index first_tile = any_of_sequence.first_tile, tiles = any_of_sequence.tiles_in_sequence;
  const Index number = n - first_tile * head_blocks_;
  const Index head_block = number / tiles, last_first = tiles - 1 - number % tiles;
  const SequenceTile& tile = query_tiles_[first_tile + last_first];
  const Index blocks_of_group = head_blocks_ / shape_.kv_heads;
  const Index hkv = head_block / blocks_of_group, first = head_block % blocks_of_group * heads_per_panel_;
  return {.sequence = &shape_.sequences[tile.sequence],
          .queries = tile.rows,
          .h = hkv * shape_.group_size() + first,
          .hkv = hkv,
          .heads = std::min(heads_per_panel_, shape_.group_size() - first)};
}

// Decode
// -------------------------------------------------------------------------------------------------------

DecodeSchedule::DecodeSchedule(const ProblemShape& shape)
    : shape_(shape),
      tile_keys_(shape.tiles.keys > 0 ? shape.tiles.keys : 128),
      splits_(num_splits(std::ssize(shape.sequences), shape.tk)) {}

DecodeSchedule::Task DecodeSchedule::task(Index n) const {
  const Sequence& s = shape_.sequences[n / splits_];
  return {
      .sequence = &s, .split = n % splits_, .keys = split_of(s.keys_of(s.queries()), n % splits_, splits_)};
}

// Backward
// -----------------------------------------------------------------------------------------------------

BackwardSchedule::BackwardSchedule(const ProblemShape& shape, const MicroKernel& kernel,
                                   const BiasGrad& dbias, int threads)
    : shape_(shape), dbias_(dbias), tile_(backward_tile(shape, kernel)) {
  panels_ = ceil_div(tile_.keys, kernel.lanes);
  query_tiles_ = tiles_of(shape.sequences, &Sequence::queries, tile_.queries);
  key_tiles_ = tiles_of(shape.sequences, &Sequence::keys, tile_.keys);
  first_query_tile_.resize(shape.sequences.size());
  for (const SequenceTile& t : query_tiles_) first_query_tile_[t.sequence] = t.first_tile;
  bias_tiles_ = shape.packed ? std::ssize(key_tiles_) : ceil_div(shape.tk, tile_.keys);
  tasks_ = ordered_tasks(threads);
}

// Key tiles of one head contend for the same rows of dQ, so concurrent tasks should belong to different
// heads. As many heads as there are threads are interleaved, far apart in memory to avoid false sharing. With
// dbias, heads run one after the other because they may share it. This order affects speed only; the order of
// sums is fixed by the tickets.
std::vector<BackwardSchedule::Task> BackwardSchedule::ordered_tasks(int threads) const {
  struct Head {
    Index first_tile, tiles, hkv;
  };
  std::vector<Head> heads;
  for (const SequenceTile& t : key_tiles_) {
    for (Index hkv = 0; t.index == 0 && hkv < shape_.kv_heads; ++hkv)
      heads.push_back({t.first_tile, t.tiles_in_sequence, hkv});
  }
  std::vector<Task> tasks;
  const Index count = std::ssize(heads);
  const Index groups = dbias_.wanted ? count : ceil_div(count, threads);
  for (Index group = 0; group < groups; ++group) {
    bool more = true;
    for (Index n = 0; more; ++n) {
      more = false;
      for (Index h = group; h < count; h += groups) {
        const Head& head = heads[h];
        if (n < head.tiles) tasks.push_back({.key_tile = head.first_tile + n, .hkv = head.hkv});
        more = more || n + 1 < head.tiles;
      }
    }
  }
  return tasks;
}

Range BackwardSchedule::query_tiles_of(const SequenceTile& keys) const {
  const Sequence& s = sequence_of(keys);
  const Range queries = s.queries_of(keys.rows);
  const Index first = first_query_tile_[keys.sequence];
  const Index begin = first + (queries.begin - s.q0) / tile_.queries;
  return {begin, queries.empty() ? begin : first + ceil_div(queries.end - s.q0, tile_.queries)};
}

// The first tile of keys of its sequence that adds to this tile of dQ, if any does.
Index BackwardSchedule::first_key_tile(const SequenceTile& queries) const {
  const Sequence& s = sequence_of(queries);
  return (s.keys_of(queries.rows).begin - s.k0) / tile_.keys;
}
bool BackwardSchedule::unseen(const SequenceTile& queries) const {
  const Sequence& s = sequence_of(queries);
  const Range keys = s.keys_of(queries.rows);
  return s.k0 + first_key_tile(queries) * tile_.keys >= keys.end || keys.begin >= s.k0 + s.tk;
}

Ticket BackwardSchedule::dq_ticket(const SequenceTile& keys, Index query_tile, Index h) const {
  return {.tile = query_tile * shape_.heads + h,
          .number = keys.index - first_key_tile(query_tiles_[query_tile])};
}

// Heads and batch rows that share a slice of dbias add to a tile of its keys in the order of (b, h).
Ticket BackwardSchedule::dbias_ticket(const SequenceTile& keys, Index h) const {
  const Index b = sequence_of(keys).b;
  const Index slice = (dbias_.over_batch ? 0 : b * shape_.heads) + (dbias_.over_heads ? 0 : h);
  const Index rows_before = dbias_.over_batch ? batch_rows_before(b, keys.index) : 0;
  const Index number = rows_before * (dbias_.over_heads ? shape_.heads : 1) + (dbias_.over_heads ? h : 0);
  const Index key_tile = shape_.packed ? keys.first_tile + keys.index : keys.index;
  return {.tile = slice * bias_tiles_ + key_tile, .number = number};
}
// Batch rows before b whose keys reach into the tile.
Index BackwardSchedule::batch_rows_before(Index b, Index key_tile) const {
  return std::count_if(shape_.sequences.begin(), shape_.sequences.end(),
                       [&](const Sequence& s) { return s.b < b && key_tile * tile_.keys < s.tk; });
}

}  // namespace tilegrad::kernels
