#include "tilegrad/train/app/comparison_folder.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tilegrad/base/file.h"
#include "tilegrad/train/app/output_folder.h"
#include "tilegrad/train/run/run_folder.h"
#include "tilegrad/train/run/stop_rule.h"

namespace tilegrad::train {

namespace {

namespace fs = std::filesystem;

// Neither threads nor folders change a bit of a run.
bool same_run(const RunConfig& a, const RunConfig& b) {
  const auto identity = [](const RunConfig& config) {
    nlohmann::ordered_json json = to_json(config);
    for (const char* key : {"out", "threads", "text"}) json.erase(key);
    return json;
  };
  return identity(a) == identity(b);
}

bool is_finished(const RunConfig& c, const TrainState& state) {
  if (state.loss_count > 0) return false;  // there are steps without an evaluation
  return state.step == c.steps || !stop_reason(c.stop_when, c.patience, state.evaluations).empty();
}

// Whether compare.json names a run that is none of these.
bool names_others(const fs::path& file, const std::vector<Variant>& variants) {
  std::error_code unknown;
  if (!fs::exists(file, unknown)) return false;
  const auto rows = nlohmann::json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  return std::any_of(rows.begin(), rows.end(), [&](const nlohmann::json& row) {
    return !row.is_object() || std::none_of(variants.begin(), variants.end(), [&](const Variant& variant) {
      return row.value("variant", "") == variant.name;
    });
  });
}

bool is_usable(const fs::path& folder, const std::vector<Variant>& variants) {
  std::error_code unknown;
  if (fs::exists(RunFolder(folder).config_file(), unknown)) return false;  // a run of its own
  return !names_others(folder / "compare.json", variants) &&
         std::none_of(variants.begin(), variants.end(),
                      [](const Variant& variant) { return standing_of(variant) == Standing::other; });
}

}  // namespace

Standing standing_of(const Variant& variant) {
  const RunFolder folder(variant.config.out);
  std::error_code unknown;
  if (!fs::exists(folder.config_file(), unknown)) return Standing::absent;
  const RunConfig saved = folder.read_config();
  if (!same_run(saved, variant.config)) return Standing::other;
  if (!fs::exists(folder.state_file(), unknown)) return Standing::begun;
  return is_finished(saved, folder.read_state(saved)) ? Standing::finished : Standing::unfinished;
}

void place(std::vector<Variant>& variants, const fs::path& folder) {
  for (Variant& variant : variants) variant.config.out = (folder / variant.name).string();
}

void check_usable(const fs::path& folder, const std::vector<Variant>& variants) {
  check(is_usable(folder, variants), "{}: holds results of other runs already; use --overwrite or --out {}",
        folder.string(), free_folder(folder).string());
}

fs::path folder_to_go_on(const fs::path& folder, std::vector<Variant> variants) {
  const std::string base = (folder / "").parent_path().string();  // without a slash at the end
  fs::path candidate = folder;
  for (int number = 2; holds_results(candidate); ++number) {
    place(variants, candidate);
    const bool unfinished = std::any_of(variants.begin(), variants.end(), [](const Variant& variant) {
      return standing_of(variant) != Standing::finished;
    });
    if (unfinished && is_usable(candidate, variants)) break;
    candidate = fmt::format("{}-{}", base, number);
  }
  return candidate;
}

}  // namespace tilegrad::train
