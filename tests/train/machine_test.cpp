#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tests/temporary_folder.h"
#include "tilegrad/base/file.h"
#include "tilegrad/base/lock.h"
#include "tilegrad/train/measure/best_peak.h"
#include "tilegrad/train/measure/machine_load.h"
#include "tilegrad/train/measure/speed.h"
#include "tilegrad/train/measure/system.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

// An environment variable, until the end of a test.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* const before = std::getenv(name)) before_ = before;
    ::setenv(name, value.c_str(), 1);
  }
  ~Variable() {
    if (before_) {
      ::setenv(name_, before_->c_str(), 1);
    } else {
      ::unsetenv(name_);
    }
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

}  // namespace

TEST_CASE("machine: speeds and sizes are those of some machine") {
  CHECK(fma_gflops<float>() > 0);
  CHECK(fma_gflops<double>() > 0);
  CHECK(read_bandwidth(Index{1} << 20) > 0);
  CHECK(l2_bytes() >= Index{64} << 10);
  CHECK(l2_bytes() % 1024 == 0);
  CHECK(installed_memory() > l2_bytes());
  CHECK_FALSE(processor_name().empty());
}

TEST_CASE("machine: the times of its processors are those of /proc/stat") {
  const std::string stat =
      "cpu  10 20 30 400 50 6 7 8 9 9\n"
      "cpu0 100 10 50 700 40 5 15 80 33 0\n"
      "cpu1 200 0 100 600 0 0 0 100 0 0\n"
      "cpu10 1 1 1 1 1 1 1 1 1 1\n"
      "intr 5\n";
  const auto first = parse_processor_times(stat, std::vector<int>{0}, 100);
  REQUIRE(first);
  CHECK(first->all == doctest::Approx(10));
  CHECK(first->busy == doctest::Approx(2.6));  // all but idle and iowait: with steal, without guests
  const auto both = parse_processor_times(stat, std::vector<int>{0, 1}, 100);
  REQUIRE(both);
  CHECK(both->all == doctest::Approx(20));
  CHECK(both->busy == doctest::Approx(6.6));
  CHECK_FALSE(parse_processor_times(stat, std::vector<int>{0, 2}, 100));
  CHECK_FALSE(parse_processor_times("cpu0 1 2 3\n", std::vector<int>{0}, 100));
  CHECK_FALSE(parse_processor_times("", std::vector<int>{0}, 100));
}

TEST_CASE("machine: it is busy if others take more than a tenth of the processors") {
  const ProcessorTimes before = {.busy = 100, .all = 1000}, after = {.busy = 108, .all = 1010};
  CHECK(*share_of_others(before, after, 8) == doctest::Approx(0));
  CHECK(*share_of_others(before, after, 5) == doctest::Approx(0.3));
  CHECK(*share_of_others(before, after, 9) == 0);  // clocks that differ make no negative share
  CHECK_FALSE(share_of_others(before, {.busy = 100.1, .all = 1000.2}, 0));
  CHECK(busy_note(std::nullopt).empty());
  CHECK(busy_note(0.1).empty());
  CHECK(busy_note(0.3).starts_with("the machine is busy: other programs took 30 % of its processors' time"));
}

TEST_CASE("machine: its load is a share, or not known") {
  const MachineLoad load;
  const double share = load.share_of_others().value_or(0);
  CHECK(share >= 0);
  CHECK(share <= 1);
}

TEST_CASE("peak: the highest is remembered, for this processor, these threads and this type") {
  const test::TemporaryFolder folder;
  const Variable cache("XDG_CACHE_HOME", folder / "cache");
  CHECK(peaks_file() == folder / "cache/tilegrad/peaks.json");
  CHECK(best_peak(100, "f32", 2) == 100);
  CHECK(best_peak(80, "f32", 2) == 100);
  CHECK(best_peak(120, "f32", 2) == 120);
  CHECK(best_peak(119, "f32", 2) == 120);
  CHECK(best_peak(50, "f32", 1) == 50);
  CHECK(best_peak(60, "f64", 2) == 60);
  const auto peaks = nlohmann::json::parse(read_file(peaks_file()));
  CHECK(peaks.size() == 3);
  for (const auto& peak : peaks.items()) CHECK(peak.key().starts_with(processor_name()));
}

TEST_CASE("peak: a file that is damaged, or says what cannot be, counts as none and is replaced") {
  const test::TemporaryFolder folder;
  const Variable cache("XDG_CACHE_HOME", folder / "cache");
  best_peak(100, "f32", 2);
  const std::string key = nlohmann::json::parse(read_file(peaks_file())).begin().key();
  const auto with = [&](const nlohmann::json& value) { return nlohmann::json{{key, value}}.dump(); };
  for (const std::string& content : {std::string("{\"half"), std::string("[1]"), std::string("\0\xff", 2),
                                     with("fast"), with(-5), with(1e9)}) {
    CAPTURE(content);
    write_file(peaks_file(), content);
    CHECK(best_peak(90, "f32", 2) == 90);
    CHECK(nlohmann::json::parse(read_file(peaks_file())).at(key) == 90);
  }
}

TEST_CASE("peak: where nothing can be kept, and while another process writes, the measured one stands") {
  const test::TemporaryFolder folder;
  write_file(folder / "file", "");
  {
    const Variable cache("XDG_CACHE_HOME", folder / "file");  // no folder can be made in a file
    CHECK(best_peak(100, "f32", 2) == 100);
    CHECK(best_peak(80, "f32", 2) == 80);
  }
  {
    const Variable cache("XDG_CACHE_HOME", folder / "cache");
    const FolderLock other(folder / "cache/tilegrad");
    CHECK(best_peak(100, "f32", 2) == 100);
    CHECK_FALSE(std::filesystem::exists(peaks_file()));
  }
  const Variable cache("XDG_CACHE_HOME", "not/absolute"), home("HOME", folder / "home");
  CHECK(peaks_file() == folder / "home/.cache/tilegrad/peaks.json");
  const Variable nowhere("HOME", "");
  CHECK(peaks_file().empty());
  CHECK(best_peak(100, "f32", 2) == 100);
}
