#include "tilegrad/train/labs/lab_profile.h"

#include <algorithm>

#include "tilegrad/base/file.h"
#include "tilegrad/train/measure/chrome_trace.h"
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

LabProfile::LabProfile(const std::string& profile, const std::string& what)
    : stem_(profile.empty() ? "" : profile + "-" + what) {}

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

std::string profile_stem(const LabOptions& options, const std::string& variant) {
  if (variant.empty()) return "";
  make_folder(profile_folder(options));
  return (profile_folder(options) / variant).string();
}

std::vector<Table> profile_tables(const LabOptions& options) {
  std::vector<Table> tables;
  std::vector<std::string> warnings;
  for (const fs::path& file : table_files(profile_folder(options))) {
    const std::string name = file.filename().string();
    const Profile profile = read_profile(file, warnings);
    check(warnings.empty(), "{}", warnings.empty() ? "" : warnings[0]);
    tables.push_back(profile_table(name.substr(0, name.size() - kTableEnding.size()), profile));
    tables.back().folded = true;
  }
  return tables;
}

}  // namespace tilegrad::train
