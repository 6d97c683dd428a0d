#include "tilegrad/train/report/comparison.h"

#include <algorithm>
#include <map>

#include "tilegrad/base/format.h"
#include "tilegrad/train/report/table.h"

namespace tilegrad::train {

std::string comparison_table(const std::vector<VariantResult>& results) {
  std::vector<std::vector<std::string>> rows;
  for (const VariantResult& r : results) {
    const bool evaluated = r.last.step > 0;
    const auto loss = [&](double value) { return evaluated ? fmt::format("{:.4f}", value) : "-"; };
    rows.push_back(
        {r.name, fmt::format("{}", r.parameters), format_bytes(r.kv_bytes_per_token), loss(r.last.train_loss),
         loss(r.last.val_loss), evaluated ? fmt::format("{:.1f} %", 100 * r.last.accuracy) : "-",
         fmt::format("{:.2f}", r.ms_per_step), format_count(r.tokens_per_s), format_bytes(r.peak_bytes),
         format_bytes(r.peak_rss), fmt::format("{:.1e}", r.largest_difference)});
  }
  return format_table({"variant", "parameters", "K/V a token", "train loss", "val loss", "accuracy",
                       "ms a step", "tokens/s", "peak tracked", "peak RSS", "loss differs by"},
                      rows);
}

std::string curves_csv(const std::vector<VariantResult>& results) {
  std::string csv = "step";
  for (const VariantResult& r : results) csv += "," + r.name;
  for (const VariantResult& r : results) csv += "," + r.name + " val_loss";
  csv += "\n";

  std::size_t steps = 0;
  std::vector<std::map<Index, double>> evaluations;
  for (const VariantResult& r : results) {
    steps = std::max(steps, r.metrics.steps.size());
    auto& by_step = evaluations.emplace_back();
    for (const EvaluationLine& e : r.metrics.evaluations) by_step[e.step] = e.val_loss;
  }
  for (std::size_t i = 0; i < steps; ++i) {
    csv += fmt::format("{}", i + 1);
    for (const VariantResult& r : results) {
      csv += i < r.metrics.steps.size() ? fmt::format(",{}", r.metrics.steps[i].loss) : ",";
    }
    for (const auto& by_step : evaluations) {
      const auto found = by_step.find(static_cast<Index>(i) + 1);
      csv += found != by_step.end() ? fmt::format(",{}", found->second) : ",";
    }
    csv += "\n";
  }
  return csv;
}

nlohmann::ordered_json comparison_json(const std::vector<VariantResult>& results) {
  auto rows = nlohmann::ordered_json::array();
  for (const VariantResult& r : results) {
    rows.push_back({{"variant", r.name},
                    {"exit_code", r.exit_code},
                    {"parameters", r.parameters},
                    {"kv_bytes_per_token", r.kv_bytes_per_token},
                    {"steps", r.metrics.steps.size()},
                    {"train_loss", r.last.train_loss},
                    {"val_loss", r.last.val_loss},
                    {"accuracy", r.last.accuracy},
                    {"exact", r.last.exact},
                    {"ms_per_step", r.ms_per_step},
                    {"tokens_per_s", r.tokens_per_s},
                    {"peak_bytes", r.peak_bytes},
                    {"peak_rss", r.peak_rss},
                    {"largest_difference", r.largest_difference}});
    if (r.profile.calls > 0) rows.back()["profile"] = to_json(r.profile);
  }
  return rows;
}

}  // namespace tilegrad::train
