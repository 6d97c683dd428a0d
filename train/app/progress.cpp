#include "tilegrad/train/app/progress.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "tilegrad/base/format.h"
#include "tilegrad/base/json.h"
#include "tilegrad/train/report/numbers.h"

namespace tilegrad::train {

Progress::Progress(const Console& console, ProgressOptions options)
    : console_(console), options_(std::move(options)), overwrite_(console.terminal && !options_.json) {}

Progress::~Progress() {
  if (width_ > 0) console_.out << '\n';
}

void Progress::step(const StepReport& report) {
  constexpr double kOld = 0.95;
  mean_ms_ = mean_ms_ == 0 ? report.ms : kOld * mean_ms_ + (1 - kOld) * report.ms;
  last_ = report;
  show_after(overwrite_ ? Clock::duration(std::chrono::milliseconds(100)) : std::chrono::seconds(10));
}

void Progress::evaluation(const Evaluation& evaluation) {
  evaluation_ = evaluation;
  const bool at_once = overwrite_ || last_.step == options_.steps;
  show_after(at_once ? Clock::duration(0) : std::chrono::seconds(1));
}

double Progress::seconds_left() const {
  return mean_ms_ / 1e3 * static_cast<double>(options_.steps - last_.step);
}

std::string Progress::line(bool with_evaluation) const {
  std::string text = fmt::format("step {}/{}  loss {:.4f}", last_.step, options_.steps, last_.loss);
  if (evaluation_ && with_evaluation) {
    text += fmt::format("  val {:.4f}  acc {}", evaluation_->loss, format_percent(evaluation_->accuracy));
  }
  text += fmt::format("  {} tok/s  {}", format_count(last_.tokens_per_s), format_bytes(last_.peak_bytes));
  const bool done = last_.step == options_.steps;
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  return text + (done ? fmt::format("  done in {}", format_duration(elapsed))
                      : fmt::format("  {} left", format_duration(seconds_left())));
}

// The bar takes the room that the numbers leave; where they leave none, the evaluation is dropped. What still
// does not fit is cut off: a line that wraps could not be overwritten.
std::string Progress::line_with_bar() const {
  constexpr std::size_t kLongest = 24, kShortest = 4, kFrame = 3;
  const std::string label = options_.label.empty() ? "" : options_.label + "  ";
  std::string text, bar;
  std::size_t room = 0;
  for (const bool with_evaluation : {true, false}) {
    text = line(with_evaluation);
    room = console_.columns - std::min(console_.columns, 1 + label.size() + text.size());
    if (room >= kShortest + kFrame) break;
  }
  if (room >= kShortest + kFrame) {
    const std::size_t length = std::min(room - kFrame, kLongest);
    const double share = static_cast<double>(last_.step) / static_cast<double>(options_.steps);
    const auto done = static_cast<std::size_t>(share * static_cast<double>(length));
    bar = fmt::format("[{}{}] ", std::string(done, '='), std::string(length - done, ' '));
  }
  return (label + bar + text).substr(0, console_.columns - 1);
}

std::string Progress::json() const {
  nlohmann::ordered_json line;
  if (!options_.label.empty()) line["run"] = options_.label;
  line["step"] = last_.step;
  line["steps"] = options_.steps;
  line["loss"] = last_.loss;
  if (evaluation_) {
    line["val_loss"] = evaluation_->loss;
    line["accuracy"] = evaluation_->accuracy;
  }
  line["tokens_per_s"] = last_.tokens_per_s;
  line["peak_bytes"] = last_.peak_bytes;
  line["seconds_left"] = seconds_left();
  return json_text(line);
}

void Progress::show_after(Clock::duration pause) {
  if (options_.quiet || Clock::now() - shown_ < pause) return;
  shown_ = Clock::now();
  if (!overwrite_) {
    const std::string label = options_.label.empty() ? "" : options_.label + "  ";
    console_.out << (options_.json ? json() : label + line(true)) << std::endl;
    return;
  }
  const std::string text = line_with_bar();
  console_.out << '\r' << fmt::format("{:<{}}", text, width_) << std::flush;
  width_ = text.size();
}

}  // namespace tilegrad::train
