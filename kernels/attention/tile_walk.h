#pragma once

#include <vector>

#include "tilegrad/kernels/attention/attention.h"

/// Which tiles flash attention computes, and in which order: what its schedules decide, in a form to look at.
namespace tilegrad::kernels {

/// Whether causal mask and window leave none, some or all of a tile's pairs of query and key. The kernels skip the
/// first, mask the second, and ask nothing about the third.
enum class TileState { skipped, cut, full };

/// A tile that a task visits: queries and keys from the first ones given on.
struct TileVisit {
  Index first_query, queries;
  Index first_key, keys;
  Index head;  ///< of the queries
  TileState state;
};

/// One task runs on one thread, from its first tile to its last.
struct TileTask {
  Index batch;
  std::vector<TileVisit> visits;
  Index part = 0;  ///< of the keys that its queries see, with split-KV
};

struct TileWalk {
  TileSizes tile;               ///< of this pass; tiles at the end of what a task sees are smaller
  std::vector<TileTask> tasks;  ///< in the order in which they are handed out
  Index parts = 1;              ///< into which split-KV cuts the keys; they are merged at the end
};

/// The sizes of one call: q (batch, tq, heads, dim), k and v (batch, tk, kv_heads, dim).
struct WalkSizes {
  Index batch, tq, tk, heads, kv_heads, dim;
  Index element_bytes = 4;  ///< of the computing type
  bool widened = false;     ///< stored in a narrower type, such as bf16
};

/// Forward, a task has a tile of queries and walks over the keys from the first one that any of them sees. With a few
/// queries a task may have several heads, and one part of the keys.
TileWalk forward_walk(const WalkSizes& sizes, const AttentionOptions& options);
/// Backward, a task has a tile of keys and walks over the queries of all heads that share them.
TileWalk backward_walk(const WalkSizes& sizes, const AttentionOptions& options, int threads);

/// Who takes each task, if every tile takes equally long: the thread that is free first, and of several the one with the
/// lowest number.
struct TaskTurn {
  int thread;
  Index first_turn;  ///< tiles that the thread has visited before, in all its tasks
};
std::vector<TaskTurn> turns_of(const TileWalk& walk, int threads);

}  // namespace tilegrad::kernels
