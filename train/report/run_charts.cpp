#include "tilegrad/train/report/run_charts.h"

#include <cmath>
#include <functional>
#include <map>

#include "tilegrad/base/format.h"
#include "tilegrad/train/report/memory_chart.h"
#include "tilegrad/train/report/run_groups.h"

namespace tilegrad::train {

namespace {

using Runs = std::vector<LoadedRun>;
using Points = std::vector<std::pair<double, double>>;

const Axis kStepAxis = {.title = "step"};

using PointsOf = std::function<Points(const LoadedRun&)>;

Chart curves(std::string title, std::string note, Axis y, const Runs& runs, const PointsOf& points_of) {
  Chart chart = {.title = std::move(title), .note = std::move(note), .x = kStepAxis, .y = std::move(y)};
  for (const LoadedRun& run : runs) chart.series.push_back({.name = run.name, .points = points_of(run)});
  return chart;
}

// The mean over the seeds, and from the lowest to the highest of them, at every x that all of them have.
Series over_seeds(const RunGroup& group, const PointsOf& points_of) {
  std::map<double, std::vector<double>> values;
  for (const LoadedRun* run : group.runs) {
    for (const auto& [x, y] : points_of(*run)) values[x].push_back(y);
  }
  Series series = {.name = group.name};
  for (const auto& [x, ys] : values) {
    const Spread s = spread_of(ys);
    if (s.count < std::ssize(group.runs)) continue;
    series.points.emplace_back(x, s.mean);
    series.spread.push_back({x, s.lowest, s.highest});
  }
  return series;
}

// One curve per run, or one per group if there are runs that differ only in their seed.
Chart learning_curves(std::string title, Axis y, const Runs& runs, const PointsOf& points_of) {
  const auto groups = groups_of(runs);
  if (!has_repeats(groups)) return curves(std::move(title), "", std::move(y), runs, points_of);
  Chart chart = {.title = std::move(title),
                 .note = "Lines: mean over the seeds. Bands: from the lowest to the highest of them.",
                 .x = kStepAxis,
                 .y = std::move(y)};
  for (const RunGroup& group : groups) chart.series.push_back(over_seeds(group, points_of));
  return chart;
}

Chart training_loss(const Runs& runs) {
  Chart chart = learning_curves("Training loss", {.title = "loss, nats", .switchable = true}, runs,
                                [](const LoadedRun& run) {
                                  Points points;
                                  for (const StepReport& s : run.metrics.steps)
                                    points.emplace_back(s.step, s.loss);
                                  return points;
                                });
  chart.smoothable = true;
  return chart;
}

Chart evaluations(std::string title, Axis y, const Runs& runs, double EvaluationLine::*field, double factor) {
  return learning_curves(std::move(title), std::move(y), runs, [=](const LoadedRun& run) {
    Points points;
    for (const EvaluationLine& e : run.metrics.evaluations) points.emplace_back(e.step, factor * e.*field);
    return points;
  });
}

// |loss - loss of the first run| at the steps that both have.
Chart loss_differences(const Runs& runs) {
  std::map<Index, double> first;
  for (const StepReport& s : runs[0].metrics.steps) first[s.step] = s.loss;
  const Runs others(runs.begin() + 1, runs.end());
  return curves(fmt::format("Training loss: difference from {}", runs[0].name),
                "A logarithmic axis has no point where two losses are the same.",
                {.title = "|difference|, nats", .logarithmic = true, .switchable = true}, others,
                [&](const LoadedRun& run) {
                  Points points;
                  for (const StepReport& s : run.metrics.steps) {
                    const auto found = first.find(s.step);
                    if (found != first.end()) points.emplace_back(s.step, std::abs(s.loss - found->second));
                  }
                  return points;
                });
}

Chart bars(std::string title, Axis y, const Runs& runs, const std::string& name,
           const std::function<double(const LoadedRun&)>& value_of) {
  Chart chart = {.title = std::move(title),
                 .kind = Chart::Kind::bars,
                 .y = std::move(y),
                 .series = {{.name = name, .points = {}}},
                 .categories = names_of(runs)};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    chart.series[0].points.emplace_back(static_cast<double>(i), value_of(runs[i]));
  }
  return chart;
}

Chart peak_memory(const Runs& runs) {
  Chart chart = {.title = "Peak of tracked memory",
                 .note = "What was live at the peak, by purpose.",
                 .kind = Chart::Kind::bars,
                 .y = {.title = "memory, MiB"},
                 .series = {},
                 .categories = names_of(runs),
                 .stacked = true};
  for (std::size_t c = 0; c < memory::kCategories; ++c) {
    Series series = {.name = std::string(memory::to_string(static_cast<memory::Category>(c))), .points = {}};
    for (std::size_t i = 0; i < runs.size(); ++i) {
      series.points.emplace_back(static_cast<double>(i), mebibytes(runs[i].summary.highest.at_peak[c]));
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

// One run of each group: those of other seeds take the same memory.
Runs representatives(const Runs& runs) {
  const auto groups = groups_of(runs);
  if (!has_repeats(groups)) return runs;
  Runs firsts;
  for (const RunGroup& group : groups) {
    firsts.push_back(*group.runs[0]);
    firsts.back().name = group.name;
  }
  return firsts;
}

// The last losses, one bar per group with a whisker over its seeds.
Chart last_losses(const std::vector<RunGroup>& groups) {
  Chart chart = {.title = "Last validation loss",
                 .note = "Bars: mean over the seeds. Whiskers: from the lowest to the highest of them.",
                 .kind = Chart::Kind::bars,
                 .y = {.title = "loss, nats"},
                 .series = {{.name = "val loss"}}};
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const Spread s = spread_of(groups[i], final_loss);
    const auto x = static_cast<double>(i);
    chart.categories.push_back(groups[i].name);
    chart.series[0].points.emplace_back(x, s.mean);
    if (s.count > 0) chart.series[0].spread.push_back({x, s.lowest, s.highest});
  }
  return chart;
}

}  // namespace

std::vector<Chart> run_charts(const Runs& all) {
  std::vector<Chart> charts = {training_loss(all)};
  const auto groups = groups_of(all);
  if (has_repeats(groups)) charts.push_back(last_losses(groups));
  const Runs runs = representatives(all);
  std::vector<std::pair<std::string, MemoryTimeline>> timelines;
  for (const LoadedRun& run : runs) {
    if (!run.memory.empty()) timelines.emplace_back(run.name, run.memory);
  }
  if (!timelines.empty()) charts.push_back(memory_chart(timelines));
  charts.push_back(evaluations("Validation loss", {.title = "loss, nats", .switchable = true}, all,
                               &EvaluationLine::val_loss, 1));
  charts.push_back(evaluations("Accuracy", {.title = "accuracy, %"}, all, &EvaluationLine::accuracy, 100));
  if (runs.size() > 1 && !has_repeats(groups)) charts.push_back(loss_differences(runs));
  charts.push_back(peak_memory(runs));
  charts.push_back(bars("Time of a step", {.title = "median, ms"}, runs, "ms per step",
                        [](const LoadedRun& run) { return run.summary.ms_per_step; }));
  charts.push_back(bars("Speed", {.title = "median, tokens/s"}, runs, "tokens/s",
                        [](const LoadedRun& run) { return run.summary.tokens_per_s; }));
  return charts;
}

}  // namespace tilegrad::train
