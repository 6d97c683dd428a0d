#include "train/progress.h"

#include <algorithm>

#include "base/format.h"

namespace tilegrad::train {

std::string format_duration(double seconds) {
  const auto s = static_cast<Index>(seconds + 0.5);
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{}:{:02}", s / 60, s % 60);
  return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::string format_count(double n) {
  if (n < 1e3) return fmt::format("{:.0f}", n);
  if (n < 1e6) return fmt::format("{:.1f}k", n / 1e3);
  return fmt::format("{:.1f}M", n / 1e6);
}

Progress::Progress(const Console& console, Index steps, bool quiet)
    : console_(console), steps_(steps), quiet_(quiet) {}

Progress::~Progress() {
  if (width_ > 0) console_.out << '\n';
}

void Progress::step(const StepReport& report) {
  constexpr double kOld = 0.95;
  mean_ms_ = mean_ms_ == 0 ? report.ms : kOld * mean_ms_ + (1 - kOld) * report.ms;
  last_ = report;
  const auto pause = console_.terminal ? std::chrono::milliseconds(100) : std::chrono::seconds(10);
  show(Clock::now() - shown_ >= pause);
}

void Progress::evaluation(const Evaluation& evaluation) {
  evaluation_ = evaluation;
  show(true);
}

std::string Progress::line() const {
  std::string text = fmt::format("step {}/{}  loss {:.4f}", last_.step, steps_, last_.loss);
  if (evaluation_) {
    text += fmt::format("  val {:.4f}  acc {:.1f} %", evaluation_->loss, 100 * evaluation_->accuracy);
  }
  const double left = mean_ms_ / 1e3 * static_cast<double>(steps_ - last_.step);
  return text + fmt::format("  {} tok/s  {}  {} left", format_count(last_.tokens_per_s),
                            format_bytes(last_.peak_bytes), format_duration(left));
}

void Progress::show(bool now) {
  if (quiet_ || !now) return;
  shown_ = Clock::now();
  const std::string text = line();
  if (!console_.terminal) {
    console_.out << text << std::endl;
    return;
  }
  console_.out << '\r' << fmt::format("{:<{}}", text, width_) << std::flush;
  width_ = text.size();
}

}  // namespace tilegrad::train
