#include "tilegrad/train/report/loaded_run.h"

#include <algorithm>
#include <map>

#include "tilegrad/base/file.h"
#include "tilegrad/train/run/dataset.h"
#include "tilegrad/train/run/run_folder.h"

namespace tilegrad::train {

namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

// A run's place, and what compare.json alone knows of it.
struct Place {
  std::string name;
  fs::path path;
  Index peak_rss = 0;
};

bool holds_run(const fs::path& folder) { return fs::exists(RunFolder(folder).config_file()); }

std::string folder_name(const fs::path& folder) {
  const fs::path normal = (folder / "").lexically_normal().parent_path();
  const std::string name = normal.filename().string();
  return name.empty() || name == "." || name == ".." ? folder.string() : name;
}

std::vector<Place> places_in_comparison(const fs::path& folder, std::vector<std::string>& damage) {
  std::vector<Place> places;
  const fs::path file = folder / "compare.json";
  if (!fs::exists(file)) return places;
  const ordered_json rows = ordered_json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  if (!rows.is_array()) {
    damage.push_back(file.string() + ": is not a JSON array; left out");
    return places;
  }
  for (const ordered_json& row : rows) {
    if (!row.is_object() || !row.contains("variant") || !row["variant"].is_string()) continue;
    const auto rss = row.find("peak_rss");
    const bool known = rss != row.end() && rss->is_number_integer();
    const auto name = row["variant"].get<std::string>();
    places.push_back({.name = name, .path = folder / name, .peak_rss = known ? rss->get<Index>() : 0});
  }
  return places;
}

// What there is of a comparison that is still at work, by name.
std::vector<Place> places_by_name(const fs::path& folder) {
  std::vector<Place> places;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (holds_run(entry.path())) {
      places.push_back({.name = entry.path().filename().string(), .path = entry.path()});
    }
  }
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) { return a.name < b.name; });
  return places;
}

std::vector<Place> places_in(const fs::path& folder, std::vector<std::string>& damage) {
  check(fs::is_directory(folder), "report: {}: {}", folder.string(),
        fs::exists(folder) ? "is not a folder" : "no such folder");
  if (holds_run(folder)) return {{.name = folder_name(folder), .path = folder}};
  std::vector<Place> places = places_in_comparison(folder, damage);
  if (places.empty()) places = places_by_name(folder);
  check(!places.empty(), "report: {}: holds no run: neither config.json nor folders with one",
        folder.string());
  return places;
}

// Runs f; what it throws is damage.
template <class F>
bool tolerate(std::vector<std::string>& damage, F&& f) {
  try {
    f();
    return true;
  } catch (const Error& error) {
    damage.push_back(error.what());
    return false;
  }
}

void read_run(const Place& place, ReportedRuns& result) {
  const RunFolder folder(place.path);
  ReportedRun run = {.name = place.name, .peak_rss = place.peak_rss};
  const bool readable = tolerate(result.damage, [&] {
    run.config = folder.read_config();
    run.parameters = run.config.model_for(make_codec(run.config)->vocabulary()).parameter_count();
  });
  if (!readable) return;
  tolerate(result.damage, [&] { run.metrics = read_metrics(folder.metrics_file(), result.damage); });
  tolerate(result.damage, [&] { run.memory = read_memory_timeline(folder.memory_file(), result.damage); });
  tolerate(result.damage, [&] { run.profile = read_profile(folder.ops_file(), result.damage); });
  run.summary = summary_of(run.metrics);
  result.runs.push_back(std::move(run));
}

// Two runs of one name are told apart by where they lie.
void make_names_unique(std::vector<Place>& places) {
  std::map<std::string, int> times;
  for (const Place& place : places) ++times[place.name];
  for (Place& place : places) {
    if (times[place.name] > 1) place.name = place.path.lexically_normal().string();
  }
}

}  // namespace

ReportedRuns read_runs(const std::vector<fs::path>& folders) {
  ReportedRuns result;
  std::vector<Place> places;
  for (const fs::path& folder : folders) {
    const auto found = places_in(folder, result.damage);
    places.insert(places.end(), found.begin(), found.end());
    result.environments.emplace_back(folder_name(folder),
                                     read_environment(RunFolder(folder).environment_file(), result.damage));
  }
  make_names_unique(places);
  for (const Place& place : places) read_run(place, result);
  check(!result.runs.empty(), "report: no run can be read: {}",
        result.damage.empty() ? "there is none" : result.damage[0]);
  return result;
}

}  // namespace tilegrad::train
