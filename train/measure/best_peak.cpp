#include "tilegrad/train/measure/best_peak.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "tilegrad/base/error.h"
#include "tilegrad/base/file.h"
#include "tilegrad/base/lock.h"
#include "tilegrad/train/measure/environment.h"
#include "tilegrad/train/measure/system.h"

namespace tilegrad::train {

namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

// By processor, threads, SIMD target and type; empty if there is no file, or not such a one.
ordered_json read_peaks(const fs::path& file) {
  constexpr std::size_t kLongest = 1 << 20;
  try {
    ordered_json peaks = ordered_json::parse(read_file(file, kLongest), nullptr, /*allow_exceptions=*/false);
    if (peaks.is_object()) return peaks;
  } catch (const Error&) {
  }
  return ordered_json::object();
}

// What the file says of `key`; 0 if nothing, or nothing that this machine can have reached: no neighbour takes seven
// eighths of it for as long as a measurement.
double believable_peak(const ordered_json& peaks, const std::string& key, double measured) {
  constexpr double kMostLost = 8;
  const auto found = peaks.find(key);
  if (found == peaks.end() || !found->is_number()) return 0;
  const auto peak = found->get<double>();
  return std::isfinite(peak) && peak > 0 && peak <= kMostLost * measured ? peak : 0;
}

// Another process may have written meanwhile, so that the file is read again.
void remember(const fs::path& file, const std::string& key, double measured) {
  try {
    const FolderLock lock(file.parent_path());
    ordered_json peaks = read_peaks(file);
    if (believable_peak(peaks, key, measured) >= measured) return;
    peaks[key] = measured;
    write_file(file, peaks.dump(2, ' ', true, ordered_json::error_handler_t::replace) + "\n");
  } catch (const Error&) {  // it is measured again the next time
  }
}

}  // namespace

fs::path peaks_file() {
  const auto variable = [](const char* name) {
    const char* const value = std::getenv(name);
    return fs::path(value == nullptr ? "" : value);
  };
  const fs::path cache = variable("XDG_CACHE_HOME"), home = variable("HOME");
  if (cache.is_absolute()) return cache / "tilegrad" / "peaks.json";
  return home.is_absolute() ? home / ".cache" / "tilegrad" / "peaks.json" : fs::path();
}

double best_peak(double measured, std::string_view type, int threads) {
  const fs::path file = peaks_file();
  if (file.empty() || !std::isfinite(measured)) return measured;
  const std::string key =
      fmt::format("{}, {} threads, {}, {}", processor_name(), threads, simd_target(), type);
  const double remembered = believable_peak(read_peaks(file), key, measured);
  if (remembered >= measured) return remembered;
  remember(file, key, measured);
  return measured;
}

}  // namespace tilegrad::train
