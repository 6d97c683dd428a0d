#include "tilegrad/train/report/loaded_run.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "tilegrad/base/file.h"
#include "tilegrad/train/run/dataset.h"
#include "tilegrad/train/run/run_folder.h"

namespace tilegrad::train {

namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

// A run's place, and what only compare.json knows about it.
struct Place {
  std::string name;
  fs::path path;
  ChildResult process = {};
};

bool holds_run(const fs::path& folder) { return fs::exists(RunFolder(folder).config_file()); }

std::string folder_name(const fs::path& folder) {
  const fs::path normal = (folder / "").lexically_normal().parent_path();
  const std::string name = normal.filename().string();
  return name.empty() || name == "." || name == ".." ? folder.string() : name;
}

std::vector<Place> places_in_comparison(const fs::path& folder, std::vector<std::string>& warnings) {
  std::vector<Place> places;
  const fs::path file = folder / "compare.json";
  if (!fs::exists(file)) return places;
  const ordered_json rows = ordered_json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  if (!rows.is_array()) {
    warnings.push_back(file.string() + ": is not a JSON array; left out");
    return places;
  }
  for (const ordered_json& row : rows) {
    if (!row.is_object() || !row.contains("variant") || !row["variant"].is_string()) continue;
    const auto number = [&row = row](const char* key) {
      const auto found = row.find(key);
      return found != row.end() && found->is_number_integer() ? found->get<Index>() : 0;
    };
    const auto name = row["variant"].get<std::string>();
    places.push_back(
        {.name = name,
         .path = folder / name,
         .process = {.exit_code = static_cast<int>(number("exit_code")), .peak_rss = number("peak_rss")}});
  }
  return places;
}

// The runs so far of a comparison that is still running, by name.
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

std::vector<Place> places_in(const fs::path& folder, std::vector<std::string>& warnings) {
  check(fs::is_directory(folder), "report: {}: {}", folder.string(),
        fs::exists(folder) ? "is not a folder" : "no such folder");
  if (holds_run(folder)) return {{.name = folder_name(folder), .path = folder}};
  std::vector<Place> places = places_in_comparison(folder, warnings);
  if (places.empty()) places = places_by_name(folder);
  check(!places.empty(), "report: {}: holds no run: neither config.json nor folders with one",
        folder.string());
  return places;
}

// When a file was last written, in seconds since 1970; 0 if it is missing.
double time_of(const fs::path& file) {
  std::error_code missing;
  const auto time = fs::last_write_time(file, missing);
  if (missing) return 0;
  const auto since_1970 = std::chrono::file_clock::to_sys(time).time_since_epoch();
  return std::chrono::duration<double>(since_1970).count();
}

// Runs f; what it throws becomes a warning.
template <class F>
void tolerate(std::vector<std::string>& warnings, F&& f) {
  try {
    f();
  } catch (const Error& error) {
    warnings.push_back(error.what());
  }
}

// Two runs of the same name get their paths as names.
void make_names_unique(std::vector<Place>& places) {
  std::map<std::string, int> times;
  for (const Place& place : places) ++times[place.name];
  for (Place& place : places) {
    if (times[place.name] > 1) place.name = place.path.lexically_normal().string();
  }
}

}  // namespace

std::vector<std::string> names_of(const std::vector<LoadedRun>& runs) {
  std::vector<std::string> names;
  for (const LoadedRun& run : runs) names.push_back(run.name);
  return names;
}

LoadedRun load_run(const fs::path& path, std::vector<std::string>& warnings) {
  const RunFolder folder(path);
  LoadedRun run = {.name = folder_name(path), .config = folder.read_config()};
  const nn::TransformerConfig model = run.config.model_for(make_codec(run.config)->vocabulary());
  run.parameters = model.parameter_count();
  run.kv_bytes_per_token = model.kv_bytes_per_token();
  tolerate(warnings, [&] { run.metrics = read_metrics(folder.metrics_file(), warnings); });
  tolerate(warnings, [&] { run.memory = read_memory_timeline(folder.memory_file(), warnings); });
  tolerate(warnings, [&] { run.profile = read_profile(folder.ops_file(), warnings); });
  run.summary = summary_of(run.metrics);
  run.ended = time_of(folder.metrics_file());
  return run;
}

LoadedRuns load_runs(const std::vector<fs::path>& folders) {
  LoadedRuns result;
  std::vector<Place> places;
  for (const fs::path& folder : folders) {
    const auto found = places_in(folder, result.warnings);
    places.insert(places.end(), found.begin(), found.end());
    result.environments.emplace_back(folder_name(folder),
                                     read_environment(RunFolder(folder).environment_file(), result.warnings));
  }
  make_names_unique(places);
  for (const Place& place : places) {
    tolerate(result.warnings, [&] {
      LoadedRun run = load_run(place.path, result.warnings);
      run.name = place.name;
      run.process = place.process;
      result.runs.push_back(std::move(run));
    });
  }
  check(!result.runs.empty(), "report: no run can be read: {}",
        result.warnings.empty() ? "there is none" : result.warnings[0]);
  return result;
}

}  // namespace tilegrad::train
