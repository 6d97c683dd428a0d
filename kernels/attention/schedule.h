#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "tilegrad/base/index.h"
#include "tilegrad/kernels/attention/attention.h"
#include "tilegrad/kernels/round_up.h"

/// Which task of flash attention computes what, and in which order sums that several tasks share are added.
/// Plain C++, the same for all types and SIMD targets: a schedule depends on shapes and options, and results
/// depend on nothing else, so they are the same for every number of threads. Private to kernels/.
namespace tilegrad::kernels {

/// Consecutive queries or keys [begin, end); empty if end ≤ begin.
struct Range {
  Index begin, end;
  bool empty() const { return end <= begin; }
  Index size() const { return end - begin; }
};

/// Queries [q0, q0 + tq) and keys [k0, k0 + tk) of batch row b that may see each other: a whole batch row,
/// cut at its own key length, or one of the packed sequences.
///
/// Query i stands at key position i + shift and sees the keys [i + shift − left, i + shift + right]. Both
/// ends rise with i. All masks but the boolean one have this form, so a tile is fully visible if its first
/// and last query see all of it.
struct Sequence {
  Index b, q0, tq, k0, tk;
  Index shift;
  Index left, right;

  Range keys() const { return {k0, k0 + tk}; }
  Range queries() const { return {q0, q0 + tq}; }

  /// The keys that query i sees.
  Range keys_of(Index i) const {
    return {std::clamp(i + shift - left, k0, k0 + tk), std::clamp(i + shift + right + 1, k0, k0 + tk)};
  }
  /// The keys that any of these queries sees.
  Range keys_of(Range q) const { return {keys_of(q.begin).begin, keys_of(q.end - 1).end}; }
  /// The queries that see any of these keys.
  Range queries_of(Range k) const {
    return {std::clamp(k.begin - right - shift, q0, q0 + tq), std::clamp(k.end + left - shift, q0, q0 + tq)};
  }
  /// Whether each of the queries sees each of the keys.
  bool fully_visible(Range q, Range k) const {
    return keys_of(q.end - 1).begin <= k.begin && keys_of(q.begin).end >= k.end;
  }
};

/// The sizes of one call, in rows, heads and head sizes, and its sequences.
struct ProblemShape {
  Index batch = 0, tq = 0, tk = 0, heads = 0, kv_heads = 0, dim = 0, dim_v = 0;
  TileSizes tiles = {};                  ///< what the caller asks for
  bool packed = false;                   ///< several sequences in one batch row
  std::vector<Sequence> sequences = {};  ///< see find_sequences

  /// Query heads that share a key/value head.
  Index group_size() const { return heads / kv_heads; }
  /// Queries of the longest sequence.
  Index longest_queries() const;
  /// Whether each key and value is read for a few rows only, as when a model generates. Then it takes longer to read
  /// K and V than to multiply.
  bool is_decode() const {
    constexpr Index kFewRows = 8;
    return longest_queries() * group_size() <= kFewRows;
  }
};

/// One sequence for each batch row, or for each pair of neighbours in cu_q and cu_k if there are any.
std::vector<Sequence> find_sequences(const ProblemShape& shape, const AttentionOptions& options,
                                     std::span<const std::int32_t> k_lengths,
                                     std::span<const std::int32_t> cu_q, std::span<const std::int32_t> cu_k);

/// What tiles depend on besides the shapes: the products of one SIMD target.
struct MicroKernel {
  Index lanes;                 ///< of a panel: rows of queries, or of keys, that are computed at once
  Index element_bytes = 4;     ///< of the computing type
  bool few_registers = false;  ///< 16 instead of 32, as with AVX2
};

/// A tile of the queries or of the keys of one sequence.
struct SequenceTile {
  Index sequence;
  Index index, tiles_in_sequence;
  Index first_tile;  ///< number of its sequence's first tile among all
  Range rows;
};
std::vector<SequenceTile> tiles_of(const std::vector<Sequence>& sequences, Range (Sequence::*rows)() const,
                                   Index size);

/// Split-KV: into how many parts the keys are cut if there are few tasks. Enough to keep all threads busy,
/// but with at least 128 keys each. A function of shapes alone, so results do not depend on the number of
/// threads.
Index num_splits(Index tasks, Index keys);
Range split_of(Range keys, Index split, Index splits);

/// The place of one addition in the fixed order of all additions to a tile.
struct Ticket {
  Index tile;
  Index number;  ///< 0, 1, 2, ... for each tile
};

/// Lets tasks add to the same tile in the order of their tickets, so that sums do not depend on which task is
/// faster.
class OrderedAdds {
 public:
  explicit OrderedAdds(Index tiles) : done_(tiles) {}

  /// Returns when all tickets of the tile before this one are done.
  void wait(const Ticket& ticket) const;
  void done(const Ticket& ticket) { done_[ticket.tile].store(ticket.number + 1, std::memory_order_release); }

 private:
  std::vector<std::atomic<Index>> done_;
};

/// The forward pass: a task has a tile of queries, and walks over the keys that any of them sees.
///
/// With fewer queries than a panel has lanes, the query heads of a group lie side by side in one panel ("pack
/// GQA"). If that leaves too few tasks, the keys are split.
class ForwardSchedule {
 public:
  /// The queries of a tile in `heads` heads from h on, which share key/value head hkv.
  struct Task {
    const Sequence* sequence;
    Range queries;
    Index h, hkv, heads;
  };

  ForwardSchedule(const ProblemShape& shape, const MicroKernel& kernel);

  const TileSizes& tile() const { return tile_; }
  Index panels_per_tile() const { return panels_; }
  Index splits() const { return splits_; }
  Index tasks() const { return std::ssize(query_tiles_) * head_blocks_; }
  Task task(Index n) const;

 private:
  const ProblemShape& shape_;
  TileSizes tile_;
  Index panels_;
  Index heads_per_panel_;
  Index head_blocks_;  // of so many heads, or fewer
  std::vector<SequenceTile> query_tiles_;
  Index splits_;
};

/// Decode: a task has one part of a sequence's keys, and all queries of all heads.
class DecodeSchedule {
 public:
  struct Task {
    const Sequence* sequence;
    Index split;
    Range keys;
  };

  explicit DecodeSchedule(const ProblemShape& shape);

  Index tile_keys() const { return tile_keys_; }
  Index splits() const { return splits_; }
  Index tasks() const { return std::ssize(shape_.sequences) * splits_; }
  /// The parts of a sequence follow each other.
  Task task(Index n) const;

 private:
  const ProblemShape& shape_;
  Index tile_keys_, splits_;
};

/// The backward pass: a task has a tile of keys in one key/value head, and walks over all queries that see
/// any of them, in all heads of the group. dK and dV belong to the task. dQ is summed over tasks, and so is a
/// dbias that is broadcast: both in the order of their tickets.
class BackwardSchedule {
 public:
  struct Task {
    Index key_tile, hkv;
  };
  /// Over which axes a wanted dbias is summed.
  struct BiasGrad {
    bool wanted = false, over_batch = false, over_heads = false;
  };

  BackwardSchedule(const ProblemShape& shape, const MicroKernel& kernel, const BiasGrad& dbias, int threads);

  const TileSizes& tile() const { return tile_; }
  Index panels_per_tile() const { return panels_; }
  const std::vector<SequenceTile>& query_tiles() const { return query_tiles_; }
  const std::vector<SequenceTile>& key_tiles() const { return key_tiles_; }
  /// In the order in which they are handed out. No task waits for a later one, so nothing deadlocks: a task
  /// that is waited for is running or has finished.
  const std::vector<Task>& tasks() const { return tasks_; }

  /// The tiles of queries that see any of these keys, as numbers in query_tiles().
  Range query_tiles_of(const SequenceTile& keys) const;
  /// Whether no key is visible to any of these queries, so that no task adds to their dQ.
  bool unseen(const SequenceTile& queries) const;

  Index dq_tiles() const { return std::ssize(query_tiles_) * shape_.heads; }
  Ticket dq_ticket(const SequenceTile& keys, Index query_tile, Index h) const;
  Index dbias_tiles() const { return dbias_.wanted ? bias_tiles_ * shape_.batch * shape_.heads : 0; }
  Ticket dbias_ticket(const SequenceTile& keys, Index h) const;

 private:
  const Sequence& sequence_of(const SequenceTile& t) const { return shape_.sequences[t.sequence]; }
  Index first_key_tile(const SequenceTile& queries) const;
  Index batch_rows_before(Index b, Index key_tile) const;
  std::vector<Task> ordered_tasks(int threads) const;

  const ProblemShape& shape_;
  BiasGrad dbias_;
  TileSizes tile_;
  Index panels_;
  std::vector<SequenceTile> query_tiles_, key_tiles_;
  std::vector<Index> first_query_tile_;  // of each sequence
  Index bias_tiles_;                     // tiles of keys of one slice of dbias
  std::vector<Task> tasks_;
};

}  // namespace tilegrad::kernels
