#include "tilegrad/train/report/run_groups.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "tilegrad/base/format.h"
#include "tilegrad/train/report/numbers.h"

namespace tilegrad::train {

namespace {

using Json = nlohmann::ordered_json;

// What makes a run the run that it is, but for its seed.
Json identity_of(const LoadedRun& run) {
  Json settings = to_json(run.config);
  for (const char* key : {"seed", "out", "threads", "save_every", "vocabulary"}) settings.erase(key);
  return settings;
}

std::string name_without_seed(const LoadedRun& run) {
  const std::string seed = fmt::format("seed={}", run.config.seed);
  if (run.name == seed) return "all seeds";
  return run.name.ends_with("," + seed) ? run.name.substr(0, run.name.size() - seed.size() - 1) : run.name;
}

bool has_one_name(const RunGroup& group) {
  return std::all_of(group.runs.begin(), group.runs.end(), [&](const LoadedRun* run) {
    return name_without_seed(*run) == name_without_seed(*group.runs[0]);
  });
}

std::string text_of(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

// "lr=0.001, positions=rope": the settings that are not the same in all groups.
void name_by_settings(std::vector<RunGroup>& groups, const std::vector<Json>& identities) {
  for (std::size_t i = 0; i < groups.size(); ++i) {
    std::vector<std::string> parts;
    for (const auto& setting : identities[i].items()) {
      const bool differs = std::any_of(identities.begin(), identities.end(), [&](const Json& other) {
        return !other.contains(setting.key()) || other.at(setting.key()) != setting.value();
      });
      if (differs) parts.push_back(fmt::format("{}={}", setting.key(), text_of(setting.value())));
    }
    groups[i].name = parts.empty() ? "all seeds" : fmt::format("{}", fmt::join(parts, ", "));
  }
}

std::string losses_of(const Spread& s) { return format_spread(s) + fmt::format(" over {} seeds", s.count); }

}  // namespace

std::vector<RunGroup> groups_of(const std::vector<LoadedRun>& runs) {
  std::vector<RunGroup> groups;
  std::vector<Json> identities;
  for (const LoadedRun& run : runs) {
    Json identity = identity_of(run);
    const auto found = std::find(identities.begin(), identities.end(), identity);
    const auto place = static_cast<std::size_t>(found - identities.begin());
    if (found == identities.end()) {
      identities.push_back(std::move(identity));
      groups.emplace_back();
    }
    groups[place].runs.push_back(&run);
  }
  std::set<std::string> names;
  for (RunGroup& group : groups) {
    group.name = name_without_seed(*group.runs[0]);
    names.insert(group.name);
  }
  const bool named = names.size() == groups.size() && std::all_of(groups.begin(), groups.end(), has_one_name);
  if (!named) name_by_settings(groups, identities);
  return groups;
}

bool has_repeats(const std::vector<RunGroup>& groups) {
  const auto has_distinct_seeds = [](const RunGroup& group) {
    std::set<std::uint64_t> seeds;
    for (const LoadedRun* run : group.runs) seeds.insert(run->config.seed);
    return seeds.size() == group.runs.size();
  };
  return std::any_of(groups.begin(), groups.end(), [](const auto& group) { return group.runs.size() > 1; }) &&
         std::all_of(groups.begin(), groups.end(), has_distinct_seeds);
}

Spread spread_of(const RunGroup& group, const std::function<double(const LoadedRun&)>& value_of) {
  std::vector<double> values;
  for (const LoadedRun* run : group.runs) values.push_back(value_of(*run));
  return spread_of(values);
}

double final_loss(const LoadedRun& run) {
  return run.summary.last.step > 0 ? run.summary.last.val_loss : std::nan("");
}

Table groups_table(const std::vector<RunGroup>& groups) {
  Table table = {
      .title = "Over seeds: mean ± standard deviation",
      .columns = {"", "seeds", "val loss", "lowest", "highest", "accuracy", "ms per step", "peak tracked"}};
  for (const RunGroup& group : groups) {
    const Spread loss = spread_of(group, final_loss);
    const Spread accuracy = spread_of(group, [](const LoadedRun& run) {
      return run.summary.last.step > 0 ? run.summary.last.accuracy : std::nan("");
    });
    const Spread ms = spread_of(group, [](const LoadedRun& run) { return run.summary.ms_per_step; });
    const Index peak = group.runs[0]->summary.highest.peak_bytes;
    const bool known = loss.count > 0;
    table.rows.push_back({group.name, fmt::format("{}", group.runs.size()), format_spread(loss),
                          known ? fmt::format("{:.4f}", loss.lowest) : "-",
                          known ? fmt::format("{:.4f}", loss.highest) : "-", format_percent(accuracy),
                          format_spread(ms, 2), peak > 0 ? format_bytes(peak) : "-"});
  }
  return table;
}

std::string finding_of_groups(const std::vector<RunGroup>& groups) {
  std::vector<std::pair<Spread, std::string>> losses;
  for (const RunGroup& group : groups) {
    const Spread loss = spread_of(group, final_loss);
    if (loss.count > 0) losses.emplace_back(loss, group.name);
  }
  std::sort(losses.begin(), losses.end(),
            [](const auto& a, const auto& b) { return a.first.mean < b.first.mean; });
  if (losses.empty()) return "";
  const auto& [best, best_name] = losses.front();
  if (losses.size() == 1) return fmt::format("Validation loss {}.", losses_of(best));
  std::vector<std::string> close = {best_name};
  for (std::size_t i = 1; i < losses.size(); ++i) {
    if (!distinguishable(best, losses[i].first)) close.push_back(losses[i].second);
  }
  if (close.size() == 1) return fmt::format("Lowest validation loss: {} ({}).", best_name, losses_of(best));
  const std::string lowest = fmt::format("the lowest mean is {}", losses_of(best));
  if (close.size() == losses.size())
    return fmt::format("Not distinguishable in validation loss; {}.", lowest);
  return fmt::format("Not distinguishable in validation loss: {}; {}.", few_of(close, "; "), lowest);
}

}  // namespace tilegrad::train
