#include "tilegrad/train/labs/flash_tiles.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "tilegrad/train/measure/statistics.h"

namespace tilegrad::train {

namespace {

Grid map_of(const std::string& pass, double TileTime::*ms, const std::vector<TileTime>& times) {
  std::set<Index> queries, keys;
  for (const TileTime& t : times) {
    if (t.tile_q == 0) continue;
    queries.insert(t.tile_q);
    keys.insert(t.tile_k);
  }
  Grid grid = {.title = "Time by the size of a tile, " + pass,
               .note = fmt::format(
                   "Median, ms; darker is slower. With the tiles that flash chooses itself: {:.2f} ms.",
                   times.front().*ms),
               .row_title = "queries of a tile",
               .column_title = "keys of a tile"};
  for (const Index q : queries) grid.rows.push_back(fmt::format("{}", q));
  for (const Index k : keys) grid.columns.push_back(fmt::format("{}", k));
  for (const TileTime& t : times) {  // row by row, as they were measured
    if (t.tile_q == 0) continue;
    grid.cells.push_back(
        {.value = t.*ms,
         .text = fmt::format("{:.2f}", t.*ms),
         .detail = fmt::format("{} queries and {} keys: {:.3f} ms", t.tile_q, t.tile_k, t.*ms)});
  }
  return grid;
}

}  // namespace

std::vector<FlashTask> tile_tasks(FlashTask task) {
  constexpr Index kSmallest = 16, kLargest = 512;
  task.tile_q = task.tile_k = 0;
  std::vector<FlashTask> tasks = {task};
  const auto fits = [&](Index size) { return size <= kLargest && (size == kSmallest || size <= task.seq); };
  for (Index q = kSmallest; fits(q); q *= 2) {
    for (Index k = kSmallest; fits(k); k *= 2) {
      tasks.push_back(task);
      tasks.back().tile_q = q;
      tasks.back().tile_k = k;
    }
  }
  return tasks;
}

std::vector<TileTime> measure_tiles(const FlashTask& task, Index repeats, const LabOptions& options,
                                    const Console& console) {
  const std::vector<FlashTask> arguments = tile_tasks(task);
  std::vector<Task> tasks;
  for (const FlashTask& a : arguments) {
    tasks.push_back({.measurement = "attention",
                     .variant = fmt::format("tiles-{}x{}", a.tile_q, a.tile_k),
                     .arguments = a,
                     .repeats = repeats});
  }
  const auto results = measure_interleaved(options, tasks, console);
  std::vector<TileTime> times;
  for (std::size_t i = 0; i < results.size(); ++i) {
    const auto costs = results[i].get<AttentionCosts>();
    times.push_back({.tile_q = arguments[i].tile_q,
                     .tile_k = arguments[i].tile_k,
                     .forward_ms = median(costs.forward_ms),
                     .step_ms = median(costs.step_ms)});
  }
  return times;
}

OrderedJson tiles_json(const std::vector<TileTime>& times) {
  OrderedJson rows = OrderedJson::array();
  for (const TileTime& t : times) {
    rows.push_back(
        {{"tile_q", t.tile_q}, {"tile_k", t.tile_k}, {"forward_ms", t.forward_ms}, {"step_ms", t.step_ms}});
  }
  return rows;
}

std::vector<Grid> tile_maps(const std::vector<TileTime>& times) {
  return {map_of("forward", &TileTime::forward_ms, times),
          map_of("forward and backward", &TileTime::step_ms, times)};
}

std::string tile_finding(const std::vector<TileTime>& times) {
  const auto best =
      std::min_element(times.begin() + 1, times.end(),
                       [](const TileTime& a, const TileTime& b) { return a.step_ms < b.step_ms; });
  return fmt::format(
      "of {} sizes of tiles, {} queries and {} keys have the lowest median, {:.2f} ms; those that flash "
      "chooses have {:.2f} ms",
      times.size() - 1, best->tile_q, best->tile_k, best->step_ms, times.front().step_ms);
}

}  // namespace tilegrad::train
