#include "tilegrad/train/report/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "tilegrad/base/format.h"
#include "tilegrad/train/measure/csv.h"
#include "tilegrad/train/report/numbers.h"
#include "tilegrad/train/report/run_groups.h"

namespace tilegrad::train {

namespace {

using Json = nlohmann::ordered_json;
using Runs = std::vector<LoadedRun>;

// max |loss - loss of the first run| over the steps that both have. Steps are numbered from 1 in both.
double largest_difference(const LoadedRun& first, const LoadedRun& run) {
  const auto &a = first.metrics.steps, &b = run.metrics.steps;
  double largest = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::abs(a[i].loss - b[i].loss));
  }
  return largest;
}

// One number of every run: its key in JSON, its heading in a table (none: not shown), and how it is shown
// there.
struct Column {
  std::string_view key;
  std::string_view heading;
  Json (*value)(const LoadedRun& run, const LoadedRun& first);
  std::string (*text)(const Json& value) = nullptr;
};

std::string plain(const Json& value) { return value.dump(); }
std::string loss(const Json& value) { return fmt::format("{:.4f}", value.get<double>()); }
std::string percent(const Json& value) { return format_percent(value.get<double>()); }
std::string bits(const Json& value) { return fmt::format("{:.3f}", value.get<double>()); }
std::string fixed(const Json& value) { return fmt::format("{:.2f}", value.get<double>()); }
std::string scientific(const Json& value) { return fmt::format("{:.1e}", value.get<double>()); }
std::string count(const Json& value) { return format_count(value.get<double>()); }
std::string bytes(const Json& value) {
  return value.get<Index>() > 0 ? format_bytes(value.get<Index>()) : "-";
}

// A number of the last evaluation; null before the first one.
template <auto Field>
Json evaluated(const LoadedRun& run, const LoadedRun&) {
  const EvaluationLine& last = run.summary.last;
  return last.step > 0 ? Json(last.*Field) : Json();
}

// Of a text; null for a task, whose tokens are not bytes.
Json bits_per_byte(const LoadedRun& run, const LoadedRun&) {
  const EvaluationLine& last = run.summary.last;
  return run.config.is_text() && last.step > 0 ? Json(bits_of(last.val_loss)) : Json();
}

constexpr Column kColumns[] = {
    {"exit_code", "", [](auto& run, auto&) -> Json { return run.process.exit_code; }},
    {"parameters", "parameters", [](auto& run, auto&) -> Json { return run.parameters; }, plain},
    {"kv_bytes_per_token", "K/V per token", [](auto& run, auto&) -> Json { return run.kv_bytes_per_token; },
     bytes},
    {"steps", "steps", [](auto& run, auto&) -> Json { return run.metrics.steps.size(); }, plain},
    {"train_loss", "train loss", evaluated<&EvaluationLine::train_loss>, loss},
    {"val_loss", "val loss", evaluated<&EvaluationLine::val_loss>, loss},
    {"bits_per_byte", "bits per byte", bits_per_byte, bits},
    {"accuracy", "accuracy", evaluated<&EvaluationLine::accuracy>, percent},
    {"exact", "", evaluated<&EvaluationLine::exact>},
    {"ms_per_step", "ms per step", [](auto& run, auto&) -> Json { return run.summary.ms_per_step; }, fixed},
    {"tokens_per_s", "tokens/s", [](auto& run, auto&) -> Json { return run.summary.tokens_per_s; }, count},
    {"peak_bytes", "peak tracked", [](auto& run, auto&) -> Json { return run.summary.highest.peak_bytes; },
     bytes},
    {"peak_rss", "peak RSS",  // unknown unless `compare` started the run
     [](auto& run, auto&) -> Json { return run.process.peak_rss > 0 ? Json(run.process.peak_rss) : Json(); },
     bytes},
    {"largest_difference", "loss differs by",
     [](auto& run, auto& first) -> Json { return largest_difference(first, run); }, scientific},
};

std::string cell(const Column& column, const Json& value) {
  const bool unknown = value.is_null() || (value.is_number_float() && std::isnan(value.get<double>()));
  return unknown ? "-" : column.text(value);
}

// Whether a column stands in a table: one that has a value for a run (bits per byte do where a text was learned), and
// for a single run none that compares it with itself.
bool is_shown(const Column& column, const Runs& runs) {
  const auto has_value = [&](const LoadedRun& run) { return !column.value(run, runs[0]).is_null(); };
  const bool compares = column.key == "largest_difference";
  return !column.heading.empty() && std::any_of(runs.begin(), runs.end(), has_value) &&
         (runs.size() > 1 || !compares);
}

}  // namespace

Table results_table(const Runs& runs) {
  Table table = {.title = "Results", .columns = {"run"}};
  for (const Column& column : kColumns) {
    if (is_shown(column, runs)) table.columns.emplace_back(column.heading);
  }
  for (const LoadedRun& run : runs) {
    std::vector<std::string>& row = table.rows.emplace_back();
    row.push_back(run.name);
    for (const Column& column : kColumns) {
      if (is_shown(column, runs)) row.push_back(cell(column, column.value(run, runs[0])));
    }
  }
  return table;
}

Json results_json(const Runs& runs) {
  Json rows = Json::array();
  std::map<const LoadedRun*, std::string> group_of;
  for (const RunGroup& group : groups_of(runs)) {
    for (const LoadedRun* run : group.runs) group_of[run] = group.name;
  }
  for (const LoadedRun& run : runs) {
    Json& row =
        rows.emplace_back(Json{{"variant", run.name}, {"group", group_of[&run]}, {"seed", run.config.seed}});
    for (const Column& column : kColumns) row[column.key] = column.value(run, runs[0]);
    if (run.profile.calls > 0) row["profile"] = to_json(run.profile);
  }
  return rows;
}

std::string results_csv(const Runs& runs) {
  std::string text;
  for (const Json& row : results_json(runs)) {
    std::vector<std::string> keys, cells;
    for (const auto& [key, value] : row.items()) {
      if (value.is_structured()) continue;  // a profile is a table of its own
      keys.push_back(key);
      const bool unknown =
          value.is_null() || (value.is_number_float() && !std::isfinite(value.get<double>()));
      cells.push_back(unknown ? "" : value.is_string() ? value.get<std::string>() : value.dump());
    }
    if (text.empty()) text = csv({keys});
    text += csv({cells});
  }
  return text;
}

std::string curves_csv(const Runs& runs) {
  std::vector<std::string> heading = {"step"};
  for (const LoadedRun& run : runs) heading.push_back(run.name);
  for (const LoadedRun& run : runs) heading.push_back(run.name + " val_loss");
  std::string text = csv({heading});

  std::size_t steps = 0;
  std::vector<std::map<Index, double>> evaluations;
  for (const LoadedRun& run : runs) {
    steps = std::max(steps, run.metrics.steps.size());
    auto& by_step = evaluations.emplace_back();
    for (const EvaluationLine& e : run.metrics.evaluations) by_step[e.step] = e.val_loss;
  }
  for (std::size_t i = 0; i < steps; ++i) {
    text += fmt::format("{}", i + 1);
    for (const LoadedRun& run : runs) {
      text += i < run.metrics.steps.size() ? fmt::format(",{}", run.metrics.steps[i].loss) : ",";
    }
    for (const auto& by_step : evaluations) {
      const auto found = by_step.find(static_cast<Index>(i) + 1);
      text += found != by_step.end() ? fmt::format(",{}", found->second) : ",";
    }
    text += "\n";
  }
  return text;
}

}  // namespace tilegrad::train
