#include "tilegrad/train/labs/flash_pictures.h"

#include <fmt/format.h>

#include <algorithm>

#include "tilegrad/kernels/attention/tile_walk.h"

namespace tilegrad::train {

namespace {

using kernels::TileState;
using kernels::TileVisit;
using kernels::TileWalk;

constexpr Index kMostTiles = 32;  // of a side of the picture

std::string rows_from(Index first, Index size, Index end) {
  return fmt::format("{}–{}", first, std::min(first + size, end) - 1);
}

std::vector<std::string> ranges(Index time, Index size) {
  std::vector<std::string> names;
  for (Index first = 0; first < time && std::ssize(names) < kMostTiles; first += size) {
    names.push_back(rows_from(first, size, time));
  }
  return names;
}

std::string note_of(const TileWalk& walk, Index time, Index heads) {
  std::string note = fmt::format(
      "Tiles of {} queries and {} keys. A letter is a thread, its number says as which of its tiles it takes "
      "this one, if "
      "all tiles take equally long.",
      walk.tile.queries, walk.tile.keys);
  if (heads > 1) note += fmt::format(" The first of {} heads.", heads);
  if (time > kMostTiles * std::min(walk.tile.queries, walk.tile.keys)) {
    note += fmt::format(" At most the first {} tiles.", kMostTiles);
  }
  return note;
}

Grid::Cell cell_of(const TileVisit& v, std::string_view pass, int thread, Index turn) {
  const bool cut = v.state == TileState::cut;
  const char letter = static_cast<char>('a' + thread % 26);
  const std::string turns = fmt::format("{}{}", letter, turn + 1);
  return {.kind = cut ? std::size_t{1} : std::size_t{2},
          .text = turns,
          .detail = fmt::format(
              "{}: queries {}, keys {}: {}; thread {} takes it as its tile number {}", pass,
              rows_from(v.first_query, v.queries, v.first_query + v.queries),
              rows_from(v.first_key, v.keys, v.first_key + v.keys),
              cut ? "cut by the mask, which is applied pair by pair" : "full, no pair is asked about", letter,
              turn + 1)};
}

Grid picture_of(const TileWalk& walk, std::string_view pass, const FlashTask& task, int threads) {
  Grid grid = {.title = fmt::format("The walk over tiles, {}", pass),
               .note = note_of(walk, task.seq, task.heads),
               .row_title = "queries",
               .column_title = "keys",
               .rows = ranges(task.seq, walk.tile.queries),
               .columns = ranges(task.seq, walk.tile.keys),
               .kinds = {"skipped", "cut", "full"}};
  for (const std::string& queries : grid.rows) {
    for (const std::string& keys : grid.columns) {
      grid.cells.push_back(
          {.detail = fmt::format("{}: queries {}, keys {}: skipped, no query sees any of the keys", pass,
                                 queries, keys)});
    }
  }
  const auto turns = turns_of(walk, threads);
  for (std::size_t n = 0; n < walk.tasks.size(); ++n) {
    Index turn = turns[n].first_turn;
    for (const TileVisit& v : walk.tasks[n].visits) {
      const Index row = v.first_query / walk.tile.queries, column = v.first_key / walk.tile.keys;
      const bool shown = walk.tasks[n].batch == 0 && v.head == 0 && row < std::ssize(grid.rows) &&
                         column < std::ssize(grid.columns) && v.state != TileState::skipped;
      if (shown)
        grid.cells[row * std::ssize(grid.columns) + column] = cell_of(v, pass, turns[n].thread, turn);
      ++turn;
    }
  }
  return grid;
}

}  // namespace

Chart roofline(double peak_gflops, double gbytes_per_s, const std::vector<RooflinePoint>& points) {
  const double ridge = peak_gflops / gbytes_per_s;
  double lowest = ridge, highest = ridge;
  Chart chart = {.title = "Roofline",
                 .note = fmt::format(
                     "The roof: {:.1f} GB/s from memory up to {:.1f} flop per byte, from there on {:.0f} "
                     "GFLOP/s of fused multiply-adds; both measured. Bytes by the model.",
                     gbytes_per_s, ridge, peak_gflops),
                 .x = {.title = "flop per byte", .logarithmic = true, .switchable = true},
                 .y = {.title = "GFLOP/s", .logarithmic = true, .switchable = true},
                 .series = {{.name = "roof"}}};
  for (const RooflinePoint& p : points) {
    chart.series.push_back({.name = p.name, .points = {{p.flops_per_byte, p.gflops}}});
    lowest = std::min(lowest, p.flops_per_byte);
    highest = std::max(highest, p.flops_per_byte);
  }
  chart.series[0].points = {
      {lowest / 2, gbytes_per_s * lowest / 2}, {ridge, peak_gflops}, {2 * highest, peak_gflops}};
  return chart;
}

std::vector<Grid> walk_pictures(const FlashTask& task, int threads) {
  const AttentionProblem p = task.problem();
  const kernels::WalkSizes sizes = {.batch = p.batch,
                                    .tq = p.tq,
                                    .tk = p.tk,
                                    .heads = p.heads,
                                    .kv_heads = p.kv_heads,
                                    .dim = p.head_size,
                                    .element_bytes = bytes_of(compute_dtype(p.dtype))};
  return {picture_of(kernels::forward_walk(sizes, p.options), "forward", task, threads),
          picture_of(kernels::backward_walk(sizes, p.options, threads), "backward", task, threads)};
}

}  // namespace tilegrad::train
