#include "tilegrad/train/report/run_page.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "tilegrad/base/format.h"
#include "tilegrad/train/report/column_meanings.h"
#include "tilegrad/train/report/comparison.h"
#include "tilegrad/train/report/numbers.h"
#include "tilegrad/train/report/profile_table.h"
#include "tilegrad/train/report/run_charts.h"
#include "tilegrad/train/report/run_groups.h"

namespace tilegrad::train {

namespace {

using Runs = std::vector<LoadedRun>;

// The value that all runs share, or what each of them has.
std::string shared_value(const Runs& runs, const std::function<std::string(const LoadedRun&)>& value_of) {
  const std::string first = value_of(runs[0]);
  const bool same =
      std::all_of(runs.begin(), runs.end(), [&](const LoadedRun& run) { return value_of(run) == first; });
  if (same) return first;
  const auto groups = groups_of(runs);
  std::string all;
  const auto add = [&](const std::string& name, const LoadedRun& run) {
    all += fmt::format("{}{}: {}", all.empty() ? "" : "; ", name, value_of(run));
  };
  if (has_repeats(groups)) {
    for (const RunGroup& group : groups) add(group.name, *group.runs[0]);
  } else {
    for (const LoadedRun& run : runs) add(run.name, run);
  }
  return all;
}

// --- the finding --------------------------------------------------------------------------------------

// Losses that look the same in a table are the same here.
double shown_loss(const LoadedRun& run) { return std::round(final_loss(run) * 1e4) / 1e4; }

// One run of each kind: nothing is known about the spread between seeds, so nothing is called the best.
std::string losses_of_single_seeds(const Runs& runs) {
  const LoadedRun* lowest = nullptr;
  const LoadedRun* highest = nullptr;
  for (const LoadedRun& run : runs) {
    if (!std::isfinite(shown_loss(run))) continue;
    if (lowest == nullptr || shown_loss(run) < shown_loss(*lowest)) lowest = &run;
    if (highest == nullptr || shown_loss(run) > shown_loss(*highest)) highest = &run;
  }
  if (lowest == nullptr) return "";
  if (shown_loss(*lowest) == shown_loss(*highest))
    return fmt::format("Validation loss {:.4f}.", shown_loss(*lowest));
  return fmt::format(
      "Validation loss from {:.4f} ({}) to {:.4f} ({}), with one seed each, which ranks nothing.",
      shown_loss(*lowest), lowest->name, shown_loss(*highest), highest->name);
}

// The runs with the smallest value, by name, and that value; a value of 0 is not known.
struct Best {
  std::string names;
  double value = std::numeric_limits<double>::infinity();
};

Best best_of(const Runs& runs, const std::function<double(const LoadedRun&)>& value_of) {
  Best best;
  std::vector<std::string> names;
  for (const LoadedRun& run : runs) {
    const double value = value_of(run);
    if (!(value > 0) || value > best.value) continue;
    if (value < best.value) names.clear();
    names.push_back(run.name);
    best.value = value;
  }
  best.names = few_of(names);
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
  return fmt::format("Validation loss {} and accuracy {} after {} steps of {:.2f} ms, in {}.",
                     describe_loss(s.last.val_loss, run.config.is_text()), format_percent(s.last.accuracy),
                     s.last.step, s.ms_per_step, format_bytes(s.highest.peak_bytes));
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
  const auto time = [](const LoadedRun& run) { return run.summary.ms_per_step; };
  const auto memory = [](const LoadedRun& run) {
    return static_cast<double>(run.summary.highest.peak_bytes);
  };
  std::string text;
  const auto groups = groups_of(runs);
  const bool repeated = has_repeats(groups);
  if (learn_the_same(runs)) {
    text = repeated ? finding_of_groups(groups) : losses_of_single_seeds(runs);
    if (repeated) return text;  // of the groups' memory and time there is a table
    if (!text.empty()) text += " ";
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
  return fmt::format("{} steps of {} sequences, learning rate {:.4g} to {:.4g}", c.steps, c.batch, c.lr,
                     c.min_lr);
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

// "1, 2, 3" if runs are repeated with several seeds.
std::string seeds_of(const Runs& runs) {
  if (!has_repeats(groups_of(runs)))
    return shared_value(runs, [](const auto& run) { return fmt::format("{}", run.config.seed); });
  std::set<std::uint64_t> seeds;
  for (const LoadedRun& run : runs) seeds.insert(run.config.seed);
  return fmt::format("{}", fmt::join(seeds, ", "));
}

Facts facts(const LoadedRuns& all) {
  const Runs& runs = all.runs;
  Facts facts = {{"data", shared_value(runs, data_of)},
                 {"model", shared_value(runs, model_of)},
                 {"training", shared_value(runs, training_of)},
                 {"seed", seeds_of(runs)}};
  add_environments(facts, all.environments);
  return facts;
}

std::string setting_text(const nlohmann::ordered_json& value) {
  if (value.is_null()) return "none";
  if (value.is_number_float())
    return fmt::format("{:.6g}", value.get<double>());  // not 0.00030000000000000003
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
  std::vector<Table> tables;
  const auto groups = groups_of(runs);
  if (has_repeats(groups)) tables.push_back(groups_table(groups));
  tables.push_back(results_table(runs));
  tables.back().folded = has_repeats(groups);
  for (const LoadedRun& run : runs) {
    if (run.profile.calls == 0) continue;
    tables.push_back(profile_table(run.name, run.profile));
    tables.back().folded = runs.size() > 1;
  }
  tables.push_back(column_meanings(tables));
  tables.push_back(settings_table(runs));
  return tables;
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
          .charts = run_charts(all.runs),
          .warnings = all.warnings};
}

}  // namespace tilegrad::train
