#include "tilegrad/train/app/output_folder.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "tilegrad/base/error.h"

namespace tilegrad::train {

namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 11> kRunFiles = {
    "config.json",  "metrics.jsonl", "memory.jsonl",     "environment.json",
    "profile.json", "ops.json",      "best.safetensors", "model.safetensors",
    "curves.csv",   "tensorboard",   "state.safetensors"};
constexpr std::string_view kComparison = "compare.json";

bool is_there(const fs::path& file) {
  std::error_code unknown;
  return fs::exists(file, unknown);
}

bool holds_run(const fs::path& folder) {
  // A comparison has curves, too.
  return std::any_of(kRunFiles.begin(), kRunFiles.end(),
                     [&](auto name) { return name != "curves.csv" && is_there(folder / name); });
}

void move_run(const fs::path& from, const fs::path& to) {
  for (const std::string_view name : kRunFiles) {
    std::error_code error;
    if (is_there(from / name)) fs::rename(from / name, to / name, error);
    check(!error, "{}: cannot be moved to {}: {}", (from / name).string(), to.string(), error.message());
  }
}

void remove_run(const fs::path& folder) {
  for (const std::string_view name : kRunFiles) {
    std::error_code error;
    fs::remove_all(folder / name, error);
    check(!error, "{}: cannot be removed: {}", (folder / name).string(), error.message());
  }
}

}  // namespace

bool holds_results(const fs::path& folder) { return holds_run(folder) || is_there(folder / kComparison); }

fs::path free_folder(const fs::path& folder) {
  const std::string base = (folder / "").parent_path().string();  // without a slash at the end
  fs::path free = folder;
  for (int number = 2; holds_results(free); ++number) free = fmt::format("{}-{}", base, number);
  return free;
}

void check_free(const fs::path& folder) {
  if (!holds_results(folder)) return;
  const std::string name = folder.string();
  const std::string resume = is_there(folder / "state.safetensors") ? fmt::format("--resume {}, ", name) : "";
  fail("{}: holds results already; use {}--overwrite or --out {}", name, resume,
       free_folder(folder).string());
}

PreviousRun::PreviousRun(const RunFolder& folder)
    : folder_(folder.path()), previous_(folder.path() / "previous") {
  const bool has_saved = is_there(folder.state_file());
  if (holds_run(previous_) && !has_saved) {
    remove_run(folder_);
    return;
  }
  std::error_code ignored;  // move_run() reports what matters
  fs::create_directory(previous_, ignored);
  remove_run(previous_);
  move_run(folder_, previous_);
}

PreviousRun::~PreviousRun() {
  if (previous_.empty()) return;
  try {
    if (holds_run(previous_)) {
      remove_run(folder_);
      move_run(previous_, folder_);
    }
  } catch (const Error&) {
    return;  // the files are still there, in `previous`
  }
  std::error_code ignored;
  fs::remove(previous_, ignored);
}

void PreviousRun::drop() {
  remove_run(previous_);
  std::error_code ignored;  // not empty if somebody put a file there
  fs::remove(previous_, ignored);
  previous_.clear();
}

}  // namespace tilegrad::train
