#include "tilegrad/train/report/run_page.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "tilegrad/base/format.h"
#include "tilegrad/train/report/comparison.h"
#include "tilegrad/train/report/memory_chart.h"
#include "tilegrad/train/report/profile_table.h"

namespace tilegrad::train {

namespace {

using Runs = std::vector<LoadedRun>;

std::vector<std::string> names_of(const Runs& runs) {
  std::vector<std::string> names;
  for (const LoadedRun& run : runs) names.push_back(run.name);
  return names;
}

// The value that all runs share, or what each of them has.
std::string shared_value(const Runs& runs, const std::function<std::string(const LoadedRun&)>& value_of) {
  const std::string first = value_of(runs[0]);
  const bool same =
      std::all_of(runs.begin(), runs.end(), [&](const LoadedRun& run) { return value_of(run) == first; });
  if (same) return first;
  std::string all;
  for (const LoadedRun& run : runs) {
    all += fmt::format("{}{}: {}", all.empty() ? "" : "; ", run.name, value_of(run));
  }
  return all;
}

// --- the finding --------------------------------------------------------------------------------------

// The runs with the smallest value, by name, and that value; a value of 0 is not known.
struct Best {
  std::string names;
  double value = std::numeric_limits<double>::infinity();
};

Best best_of(const Runs& runs, const std::function<double(const LoadedRun&)>& value_of) {
  Best best;
  for (const LoadedRun& run : runs) {
    const double value = value_of(run);
    if (!(value > 0) || value > best.value) continue;
    best.names = value == best.value ? best.names + ", " + run.name : run.name;
    best.value = value;
  }
  return best;
}

// ", 1.9x less than mha-naive"
std::string against_first(const Runs& runs, double best, double first, std::string_view how) {
  const double ratio = first / best;
  return ratio < 1.05 ? "" : fmt::format(", {:.1f}x {} than {}", ratio, how, runs[0].name);
}

std::string finding_of_one(const LoadedRun& run) {
  const MetricsSummary& s = run.summary;
  if (s.last.step == 0) return fmt::format("{} steps, not evaluated yet.", run.metrics.steps.size());
  return fmt::format("Validation loss {:.4f} and accuracy {:.1f} % after {} steps of {:.2f} ms, in {}.",
                     s.last.val_loss, 100 * s.last.accuracy, s.last.step, s.ms_per_step,
                     format_bytes(s.highest.peak_bytes));
}

std::string data_of(const LoadedRun& run) {
  return run.config.is_text() ? "text " + run.config.text : std::string(run.config.data_name());
}

bool learn_the_same(const Runs& runs) {
  return std::all_of(runs.begin(), runs.end(),
                     [&](const LoadedRun& run) { return data_of(run) == data_of(runs[0]); });
}

std::string finding(const Runs& runs) {
  if (runs.size() == 1) return finding_of_one(runs[0]);
  // Losses that look the same in a table are the same here.
  const auto loss = [](const LoadedRun& run) { return std::round(run.summary.last.val_loss * 1e4) / 1e4; };
  const auto time = [](const LoadedRun& run) { return run.summary.ms_per_step; };
  const auto memory = [](const LoadedRun& run) {
    return static_cast<double>(run.summary.highest.peak_bytes);
  };
  std::string text;
  if (const Best best = best_of(runs, loss); learn_the_same(runs) && !best.names.empty()) {
    text += fmt::format("Lowest validation loss: {:.4f} ({}). ", best.value, best.names);
  }
  if (const Best best = best_of(runs, memory); !best.names.empty()) {
    text += fmt::format("Least memory: {} ({}{}). ", format_bytes(static_cast<Index>(best.value)), best.names,
                        against_first(runs, best.value, memory(runs[0]), "less"));
  }
  if (const Best best = best_of(runs, time); !best.names.empty()) {
    text += fmt::format("Fastest step: {:.2f} ms ({}{}).", best.value, best.names,
                        against_first(runs, best.value, time(runs[0]), "faster"));
  }
  return text;
}

// --- facts and tables ---------------------------------------------------------------------------------

std::string model_of(const LoadedRun& run) {
  const nn::TransformerConfig& m = run.config.model;
  return fmt::format("{} layers, {} heads, width {}, context {}, {}", m.layers, m.attention.heads, m.width,
                     m.context, name_of(m.dtype));
}

std::string training_of(const LoadedRun& run) {
  const RunConfig& c = run.config;
  return fmt::format("{} steps of {} sequences, learning rate {} to {}", c.steps, c.batch, c.lr, c.min_lr);
}

using Facts = std::vector<std::pair<std::string, std::string>>;

// A fact that all folders share stands once; otherwise each folder's, with its name.
void add_environments(Facts& facts, const std::vector<std::pair<std::string, Environment>>& environments) {
  std::map<std::string, std::vector<std::pair<std::string, std::string>>> by_name;
  std::vector<std::string> order;
  for (const auto& [folder, environment] : environments) {
    for (const auto& [name, value] : facts_of(environment)) {
      auto& values = by_name[name];
      if (values.empty()) order.push_back(name);
      values.emplace_back(folder, value);
    }
  }
  for (const std::string& name : order) {
    const auto& values = by_name[name];
    const bool same = values.size() == environments.size() &&
                      std::all_of(values.begin(), values.end(),
                                  [&](const auto& value) { return value.second == values[0].second; });
    if (same) {
      facts.emplace_back(name, values[0].second);
      continue;
    }
    for (const auto& [folder, value] : values) facts.emplace_back(name + " of " + folder, value);
  }
}

Facts facts(const LoadedRuns& all) {
  const Runs& runs = all.runs;
  Facts facts = {
      {"data", shared_value(runs, data_of)},
      {"model", shared_value(runs, model_of)},
      {"training", shared_value(runs, training_of)},
      {"seed", shared_value(runs, [](const auto& run) { return fmt::format("{}", run.config.seed); })}};
  add_environments(facts, all.environments);
  return facts;
}

std::string setting_text(const nlohmann::ordered_json& value) {
  if (value.is_null()) return "none";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

Table settings_table(const Runs& runs) {
  Table table = {.title = "All settings", .columns = {"setting"}, .rows = {}, .folded = true};
  const auto names = names_of(runs);
  table.columns.insert(table.columns.end(), names.begin(), names.end());
  std::vector<nlohmann::ordered_json> configs;
  for (const LoadedRun& run : runs) configs.push_back(to_json(run.config));
  for (const auto& [key, value] : configs[0].items()) {
    if (value.is_array()) continue;  // the bytes of a vocabulary
    std::vector<std::string> row = {key};
    for (const auto& config : configs) {
      row.push_back(config.contains(key) ? setting_text(config[key]) : "–");
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::vector<Table> tables(const Runs& runs) {
  std::vector<Table> tables = {results_table(runs)};
  for (const LoadedRun& run : runs) {
    if (run.profile.calls == 0) continue;
    tables.push_back(profile_table(run.name, run.profile));
    tables.back().folded = runs.size() > 1;
  }
  tables.push_back(settings_table(runs));
  return tables;
}

// --- charts -------------------------------------------------------------------------------------------

const Axis kStepAxis = {.title = "step"};

Chart curves(std::string title, std::string note, Axis y, const Runs& runs,
             const std::function<std::vector<std::pair<double, double>>(const LoadedRun&)>& points_of) {
  Chart chart = {.title = std::move(title), .note = std::move(note), .x = kStepAxis, .y = std::move(y)};
  for (const LoadedRun& run : runs) chart.series.push_back({.name = run.name, .points = points_of(run)});
  return chart;
}

Chart training_loss(const Runs& runs) {
  Chart chart = curves("Training loss", "", {.title = "loss, nats", .switchable = true}, runs,
                       [](const LoadedRun& run) {
                         std::vector<std::pair<double, double>> points;
                         for (const StepReport& s : run.metrics.steps) points.emplace_back(s.step, s.loss);
                         return points;
                       });
  chart.smoothable = true;
  return chart;
}

Chart evaluations(std::string title, Axis y, const Runs& runs, double EvaluationLine::*field, double factor) {
  return curves(std::move(title), "", std::move(y), runs, [=](const LoadedRun& run) {
    std::vector<std::pair<double, double>> points;
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
                  std::vector<std::pair<double, double>> points;
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

std::vector<Chart> charts(const Runs& runs) {
  std::vector<Chart> charts = {training_loss(runs)};
  std::vector<std::pair<std::string, MemoryTimeline>> timelines;
  for (const LoadedRun& run : runs) {
    if (!run.memory.empty()) timelines.emplace_back(run.name, run.memory);
  }
  if (!timelines.empty()) charts.push_back(memory_chart(timelines));
  charts.push_back(evaluations("Validation loss", {.title = "loss, nats", .switchable = true}, runs,
                               &EvaluationLine::val_loss, 1));
  charts.push_back(evaluations("Accuracy", {.title = "accuracy, %"}, runs, &EvaluationLine::accuracy, 100));
  if (runs.size() > 1) charts.push_back(loss_differences(runs));
  charts.push_back(peak_memory(runs));
  charts.push_back(bars("Time of a step", {.title = "median, ms"}, runs, "ms a step",
                        [](const LoadedRun& run) { return run.summary.ms_per_step; }));
  charts.push_back(bars("Speed", {.title = "median, tokens/s"}, runs, "tokens/s",
                        [](const LoadedRun& run) { return run.summary.tokens_per_s; }));
  return charts;
}

std::string title_of(const Runs& runs) {
  const std::string data(runs[0].config.data_name());
  if (runs.size() == 1) return fmt::format("{}: a run on {}", runs[0].name, data);
  return fmt::format("{} runs{}, side by side", runs.size(), learn_the_same(runs) ? " on " + data : "");
}

}  // namespace

Report run_page(const LoadedRuns& all) {
  return {.title = title_of(all.runs),
          .finding = finding(all.runs),
          .facts = facts(all),
          .tables = tables(all.runs),
          .charts = charts(all.runs),
          .warnings = all.warnings};
}

}  // namespace tilegrad::train
