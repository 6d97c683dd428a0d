#include "tilegrad/train/labs/flash_tiles.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "tilegrad/train/labs/child.h"
#include "tilegrad/train/labs/publish.h"
#include "tilegrad/train/labs/speed_finding.h"
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
  Grid grid = {
      .title = "Time by the size of a tile, " + pass,
      .note = fmt::format(
          "Median, ms; the stronger the colour, the slower. With the tiles that flash chooses itself: "
          "{:.2f} ms.",
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

Task task_of(const std::string& variant, const FlashTask& arguments, Index repeats) {
  return {.measurement = "attention", .variant = variant, .arguments = arguments, .repeats = repeats};
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
    tasks.push_back(task_of(fmt::format("tiles-{}x{}", a.tile_q, a.tile_k), a, repeats));
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

std::string tile_finding(const FlashTask& task, const std::vector<TileTime>& times, Index repeats,
                         const LabOptions& options, const Console& console) {
  const auto best =
      std::min_element(times.begin() + 1, times.end(),
                       [](const TileTime& a, const TileTime& b) { return a.step_ms < b.step_ms; });
  FlashTask best_task = task;
  best_task.tile_q = best->tile_q;
  best_task.tile_k = best->tile_k;
  const std::vector<Task> tasks = {task_of("tiles-best", best_task, repeats),
                                   task_of("tiles-chosen", task, repeats)};
  const auto time = [](const Rounds& measured, std::size_t i) {
    return timing_of(measured.results[i].get<AttentionCosts>().step_ms, measured.count);
  };
  const auto verdict = [&](const Rounds& measured) {
    return verdict_on(time(measured, 0), time(measured, 1));
  };
  const Rounds again = measure_until_decided(options, tasks, console, [&](const Rounds& measured) {
    return verdict(measured) == Verdict::not_distinguishable;
  });
  return fmt::format(
      "of {} sizes of tiles, {} queries and {} keys have the lowest median; measured again, {}",
      times.size() - 1, best->tile_q, best->tile_k,
      speed_finding("this size", "the one that flash chooses", time(again, 0).round_ms,
                    time(again, 1).round_ms, verdict(again)));
}

}  // namespace tilegrad::train
