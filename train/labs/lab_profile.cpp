#include "tilegrad/train/labs/lab_profile.h"

#include <algorithm>

#include "tilegrad/base/file.h"
#include "tilegrad/train/report/profile_table.h"

namespace tilegrad::train {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTableEnding = ".ops.json";

std::vector<fs::path> table_files(const fs::path& folder) {
  std::vector<fs::path> files;
  if (!fs::exists(folder)) return files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().ends_with(kTableEnding)) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

LabProfile::LabProfile(const Json& task, const std::string& what) {
  if (task.contains("profile")) stem_ = task.at("profile").get<std::string>() + "-" + what;
}

void LabProfile::begin() {
  if (!stem_.empty()) call_.emplace(profiler_, ++calls_);
}

void LabProfile::end() { call_.reset(); }

void LabProfile::write() const {
  if (stem_.empty()) return;
  profiler_.trace("call").write(stem_ + ".json");
  write_profile(stem_ + std::string(kTableEnding), profiler_.profile("call"));
}

fs::path profile_folder(const LabOptions& options) { return fs::path(options.out) / "profiles"; }

void clear_profiles(const LabOptions& options) {
  const fs::path folder = profile_folder(options);
  if (!fs::exists(folder)) return;
  std::error_code error;
  fs::remove_all(folder, error);
  check(!error, "{}: cannot be replaced: {}", folder.string(), error.message());
}

Json with_profile(const LabOptions& options, Json task) {
  if (!options.profile || !task.contains("label")) return task;
  const fs::path folder = profile_folder(options);
  make_folder(folder);
  task["profile"] = (folder / task.at("label").get<std::string>()).string();
  return task;
}

std::vector<Table> profile_tables(const LabOptions& options) {
  std::vector<Table> tables;
  std::vector<std::string> damage;
  for (const fs::path& file : table_files(profile_folder(options))) {
    const std::string name = file.filename().string();
    const Profile profile = read_profile(file, damage);
    check(damage.empty(), "{}", damage.empty() ? "" : damage[0]);
    tables.push_back(profile_table(name.substr(0, name.size() - kTableEnding.size()), profile));
    tables.back().folded = true;
  }
  return tables;
}

}  // namespace tilegrad::train
