#include "tilegrad/kernels/attention/tile_walk.h"

#include <algorithm>

#include "tilegrad/kernels/attention/flash.h"
#include "tilegrad/kernels/attention/schedule.h"

namespace tilegrad::kernels {

namespace {

MicroKernel micro_kernel(Index element_bytes) {
  return element_bytes == sizeof(double) ? flash_micro_kernel(double{}) : flash_micro_kernel(float{});
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

// These queries of `heads` heads from h on walk over these keys.
std::vector<TileVisit> visits_of(const Sequence& s, Range queries, Range keys, Index tile_keys, Index h,
                                 Index heads) {
  std::vector<TileVisit> visits;
  for (Index j = keys.begin; j < keys.end; j += tile_keys) {
    for (Index head = h; head < h + heads; ++head) {
      visits.push_back(visit(s, queries, {j, std::min(j + tile_keys, keys.end)}, head));
    }
  }
  return visits;
}

TileWalk decode_walk(const ProblemShape& shape) {
  const DecodeSchedule schedule(shape);
  TileWalk walk = {
      .tile = {.queries = shape.tq, .keys = schedule.tile_keys()}, .tasks = {}, .parts = schedule.splits()};
  for (Index n = 0; n < schedule.tasks(); ++n) {
    const DecodeSchedule::Task task = schedule.task(n);
    const Sequence& s = *task.sequence;
    walk.tasks.push_back({.batch = s.b,
                          .visits = visits_of(s, s.queries(), task.keys, walk.tile.keys, 0, shape.heads),
                          .part = task.split});
  }
  return walk;
}

}  // namespace

TileWalk forward_walk(const WalkSizes& sizes, const AttentionOptions& options) {
  const ProblemShape shape = shape_of(sizes, options);
  if (shape.is_decode() && !sizes.widened) return decode_walk(shape);
  const ForwardSchedule schedule(shape, micro_kernel(sizes.element_bytes));
  TileWalk walk = {.tile = schedule.tile(), .tasks = {}, .parts = schedule.splits()};
  for (Index n = 0; n < schedule.tasks() * walk.parts; ++n) {
    const ForwardSchedule::Task task = schedule.task(n / walk.parts);
    const Sequence& s = *task.sequence;
    const Range keys = split_of(s.keys_of(task.queries), n % walk.parts, walk.parts);
    walk.tasks.push_back({.batch = s.b,
                          .visits = visits_of(s, task.queries, keys, walk.tile.keys, task.h, task.heads),
                          .part = n % walk.parts});
  }
  return walk;
}

TileWalk backward_walk(const WalkSizes& sizes, const AttentionOptions& options, int threads) {
  const ProblemShape shape = shape_of(sizes, options);
  const BackwardSchedule schedule(shape, micro_kernel(sizes.element_bytes), {}, threads);
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
