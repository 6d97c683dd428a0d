#include "tilegrad/kernels/attention/tile_walk.h"

#include <algorithm>

#include "tilegrad/kernels/attention/flash.h"
#include "tilegrad/kernels/attention/schedule.h"

namespace tilegrad::kernels {

namespace {

// One lane, so that no tile holds several heads, and no keys are split.
MicroKernel one_lane(Index element_bytes) {
  MicroKernel kernel =
      element_bytes == sizeof(double) ? flash_micro_kernel(double{}) : flash_micro_kernel(float{});
  kernel.lanes = 1;
  return kernel;
}

ProblemShape shape_of(const WalkSizes& s, const AttentionOptions& options) {
  ProblemShape shape = {.batch = s.batch,
                        .tq = s.tq,
                        .tk = s.tk,
                        .heads = s.heads,
                        .kv_heads = s.kv_heads,
                        .dim = s.dim,
                        .dim_v = s.dim,
                        .tiles = options.tiles};
  shape.sequences = find_sequences(shape, options, {}, {}, {});
  return shape;
}

TileVisit visit(const Sequence& s, Range queries, Range keys, Index head) {
  const Range seen = s.keys_of(queries);
  const bool skipped = std::min(seen.end, keys.end) <= std::max(seen.begin, keys.begin);
  const TileState state = skipped                          ? TileState::skipped
                          : s.fully_visible(queries, keys) ? TileState::full
                                                           : TileState::cut;
  return {.first_query = queries.begin,
          .queries = queries.size(),
          .first_key = keys.begin,
          .keys = keys.size(),
          .head = head,
          .state = state};
}

}  // namespace

TileWalk forward_walk(const WalkSizes& sizes, const AttentionOptions& options) {
  const ProblemShape shape = shape_of(sizes, options);
  const ForwardSchedule schedule(shape, one_lane(sizes.element_bytes));
  TileWalk walk = {.tile = schedule.tile(), .tasks = {}};
  for (Index n = 0; n < schedule.tasks(); ++n) {
    const ForwardSchedule::Task task = schedule.task(n);
    const Range all = task.sequence->keys_of(task.queries);
    TileTask& out = walk.tasks.emplace_back(TileTask{.batch = task.sequence->b, .visits = {}});
    for (Index j = all.begin; j < all.end; j += walk.tile.keys) {
      const Range keys = {j, std::min(j + walk.tile.keys, all.end)};
      out.visits.push_back(visit(*task.sequence, task.queries, keys, task.h));
    }
  }
  return walk;
}

TileWalk backward_walk(const WalkSizes& sizes, const AttentionOptions& options, int threads) {
  const ProblemShape shape = shape_of(sizes, options);
  const BackwardSchedule schedule(shape, one_lane(sizes.element_bytes), {}, threads);
  TileWalk walk = {.tile = schedule.tile(), .tasks = {}};
  for (const BackwardSchedule::Task& task : schedule.tasks()) {
    const SequenceTile& keys = schedule.key_tiles()[task.key_tile];
    const Sequence& sequence = shape.sequences[keys.sequence];
    const Range queries = schedule.query_tiles_of(keys);
    TileTask& out = walk.tasks.emplace_back(TileTask{.batch = sequence.b, .visits = {}});
    for (Index tile = queries.begin; tile < queries.end; ++tile) {
      for (Index h = task.hkv * shape.group_size(); h < (task.hkv + 1) * shape.group_size(); ++h) {
        out.visits.push_back(visit(sequence, schedule.query_tiles()[tile].rows, keys.rows, h));
      }
    }
  }
  return walk;
}

std::vector<TaskTurn> turns_of(const TileWalk& walk, int threads) {
  std::vector<Index> visited(threads, 0);
  std::vector<TaskTurn> turns;
  for (const TileTask& task : walk.tasks) {
    const auto free = std::min_element(visited.begin(), visited.end());
    turns.push_back({.thread = static_cast<int>(free - visited.begin()), .first_turn = *free});
    *free += std::ssize(task.visits);
  }
  return turns;
}

}  // namespace tilegrad::kernels
