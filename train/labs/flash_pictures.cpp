#include "tilegrad/train/labs/flash_pictures.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "tilegrad/kernels/attention/tile_walk.h"

namespace tilegrad::train {

namespace {

using kernels::TileState;
using kernels::TileTask;
using kernels::TileVisit;
using kernels::TileWalk;

constexpr Index kMostTiles = 32;  // rows or columns of the picture

std::string rows_from(Index first, Index end) { return fmt::format("{}–{}", first, end - 1); }

// Only the first head is drawn.
bool is_drawn(const TileTask& task, const TileVisit& v) {
  return task.batch == 0 && v.head == 0 && v.state != TileState::skipped;
}

// Where rows or columns of the picture begin, and the last one ends: wherever a tile does. Under a window the tiles of
// one row need not begin where those of another do, so that a tile may take several columns.
std::vector<Index> bounds_of(const TileWalk& walk, Index TileVisit::*first, Index TileVisit::*size,
                             Index time) {
  std::set<Index> bounds = {0, time};
  for (const TileTask& task : walk.tasks) {
    for (const TileVisit& v : task.visits) {
      if (is_drawn(task, v)) bounds.insert({v.*first, v.*first + v.*size});
    }
  }
  return {bounds.begin(), bounds.end()};
}

std::vector<std::string> names_of(const std::vector<Index>& bounds) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i + 1 < bounds.size() && i < kMostTiles; ++i)
    names.push_back(rows_from(bounds[i], bounds[i + 1]));
  return names;
}

std::string note_of(const TileWalk& walk, Index heads, bool is_whole) {
  std::string note = fmt::format(
      "Tiles of {} {} and {} keys. A letter is a thread, its number says as which of its tiles it takes "
      "this one, if all tiles take equally long.",
      walk.tile.queries, walk.tile.queries == 1 ? "query" : "queries", walk.tile.keys);
  if (walk.parts > 1) {
    note += fmt::format(
        " Split-KV: the keys are cut into {} parts, a task each, so that all threads have work; "
        "\"2/{}\" is a tile of the second. What the parts computed is merged at the end.",
        walk.parts, walk.parts);
  }
  if (heads > 1) note += fmt::format(" The first of {} heads.", heads);
  if (!is_whole) note += fmt::format(" At most the first {} rows and columns.", kMostTiles);
  return note;
}

// Who takes a tile, and when.
struct Turn {
  int thread;
  Index number;  // among its tiles, from 1 on
  Index part, parts;
};

Grid::Cell cell_of(const TileVisit& v, std::string_view pass, const Turn& turn) {
  const bool cut = v.state == TileState::cut;
  const char letter = static_cast<char>('a' + turn.thread % 26);
  const bool split = turn.parts > 1;
  return {
      .kind = cut ? std::size_t{1} : std::size_t{2},
      .text = fmt::format("{}{}{}", split ? fmt::format("{}/{} ", turn.part + 1, turn.parts) : "", letter,
                          turn.number),
      .detail = fmt::format(
          "{}: queries {}, keys {}: {}; {}thread {} takes it as its tile number {}", pass,
          rows_from(v.first_query, v.first_query + v.queries), rows_from(v.first_key, v.first_key + v.keys),
          cut ? "cut by the mask, which is applied pair by pair" : "full, no pair is asked about",
          split ? fmt::format("part {} of {}; ", turn.part + 1, turn.parts) : "", letter, turn.number)};
}

// The rows or columns that a tile takes, [first, second).
std::pair<Index, Index> places_of(const std::vector<Index>& bounds, Index first, Index size) {
  const auto place = [&](Index x) {
    return std::min<Index>(std::lower_bound(bounds.begin(), bounds.end(), x) - bounds.begin(), kMostTiles);
  };
  return {place(first), place(first + size)};
}

Grid empty_picture(std::string_view pass, const std::vector<Index>& rows, const std::vector<Index>& columns) {
  Grid grid = {.title = fmt::format("The walk over tiles, {}", pass),
               .row_title = "queries",
               .column_title = "keys",
               .rows = names_of(rows),
               .columns = names_of(columns),
               .kinds = {"skipped", "cut", "full"}};
  for (const std::string& queries : grid.rows) {
    for (const std::string& keys : grid.columns) {
      grid.cells.push_back(
          {.detail = fmt::format("{}: queries {}, keys {}: skipped, no query sees any of the keys", pass,
                                 queries, keys)});
    }
  }
  return grid;
}

Grid picture_of(const TileWalk& walk, std::string_view pass, const AttentionProblem& p, int threads) {
  const std::vector<Index> rows = bounds_of(walk, &TileVisit::first_query, &TileVisit::queries, p.tq);
  const std::vector<Index> columns = bounds_of(walk, &TileVisit::first_key, &TileVisit::keys, p.tk);
  Grid grid = empty_picture(pass, rows, columns);
  grid.note = note_of(walk, p.heads, std::max(rows.size(), columns.size()) <= kMostTiles + 1);
  const auto turns = turns_of(walk, threads);
  for (std::size_t n = 0; n < walk.tasks.size(); ++n) {
    const TileTask& task = walk.tasks[n];
    Turn turn = {
        .thread = turns[n].thread, .number = turns[n].first_turn, .part = task.part, .parts = walk.parts};
    for (const TileVisit& v : task.visits) {
      ++turn.number;
      if (!is_drawn(task, v)) continue;
      const auto [top, bottom] = places_of(rows, v.first_query, v.queries);
      const auto [left, right] = places_of(columns, v.first_key, v.keys);
      for (Index row = top; row < bottom; ++row) {
        for (Index column = left; column < right; ++column)
          grid.cells[row * std::ssize(grid.columns) + column] = cell_of(v, pass, turn);
      }
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
                                    .element_bytes = bytes_of(compute_dtype(p.dtype)),
                                    .widened = compute_dtype(p.dtype) != p.dtype};
  return {picture_of(kernels::forward_walk(sizes, p.options), "forward", p, threads),
          picture_of(kernels::backward_walk(sizes, p.options, threads), "backward", p, threads)};
}

}  // namespace tilegrad::train
