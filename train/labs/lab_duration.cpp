#include "tilegrad/train/labs/lab_duration.h"

#include <fmt/format.h>

#include <numeric>
#include <utility>

#include "tilegrad/base/format.h"
#include "tilegrad/train/measure/statistics.h"

namespace tilegrad::train {

namespace {

// Two digits: it is an estimate.
std::string in_words(double seconds) {
  constexpr double kMinute = 60, kHour = 3600;
  if (seconds < 100) return fmt::format("{:.0f} s", seconds < 1 ? 1 : seconds);
  if (seconds < 100 * kMinute) return fmt::format("{:.0f} min", seconds / kMinute);
  return fmt::format("{:.1f} h", seconds / kHour);
}

}  // namespace

double total(const std::vector<double>& seconds) {
  return std::accumulate(seconds.begin(), seconds.end(), 0.0);
}

Expected expected_of_rounds(const LabOptions& options, double seconds_of_a_round) {
  const double planned = options.rounds * seconds_of_a_round;
  const bool decides = options.rounds >= static_cast<int>(kRoundLooks.front());
  const double most = static_cast<double>(kRoundLooks.back()) * seconds_of_a_round;
  return {.seconds = planned, .undecided = decides && most > planned ? most : planned};
}

std::string describe(const Expected& expected) {
  const std::string least = in_words(expected.seconds), most = in_words(expected.undecided);
  return "about " + least + (most == least ? "" : fmt::format(", up to {} while undecided", most));
}

LabProgress::LabProgress(const Console& console, std::string things, std::size_t all)
    : console_(console), things_(std::move(things)), all_(all) {
  show();
}

LabProgress::~LabProgress() {
  if (width_ > 0) console_.err << '\n' << std::flush;
}

void LabProgress::done() {
  ++done_;
  show();
}

void LabProgress::clear() {
  if (width_ > 0) console_.err << '\r' << std::string(width_, ' ') << '\r' << std::flush;
  width_ = 0;
}

std::string LabProgress::line() const {
  constexpr std::size_t kLength = 24;
  const std::size_t filled = all_ == 0 ? kLength : kLength * done_ / all_;
  std::string text = fmt::format("[{}{}] {} of {} {}", std::string(filled, '='),
                                 std::string(kLength - filled, ' '), done_, all_, things_);
  if (done_ == all_) text += fmt::format("  done in {}", format_duration(watch_.seconds()));
  if (done_ > 0 && done_ < all_) {
    const double left = watch_.seconds() / static_cast<double>(done_) * static_cast<double>(all_ - done_);
    text += fmt::format("  {} left", format_duration(left));
  }
  return text.substr(0, console_.columns - 1);
}

void LabProgress::show() {
  if (!console_.terminal) return;
  const std::string text = line();
  console_.err << '\r' << fmt::format("{:<{}}", text, width_) << std::flush;
  width_ = text.size();
}

}  // namespace tilegrad::train
