#include "tilegrad/train/run/stop_rule.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "tilegrad/base/error.h"

namespace tilegrad::train {

namespace {

struct NamedFigure {
  std::string_view name;
  StopRule::Figure figure;
};
constexpr NamedFigure kFigures[] = {{"accuracy", StopRule::Figure::accuracy},
                                    {"exact", StopRule::Figure::exact},
                                    {"val_loss", StopRule::Figure::val_loss}};

}  // namespace

bool StopRule::holds(const Evaluation& e) const {
  switch (figure) {
    case Figure::accuracy:
      return e.accuracy >= value;
    case Figure::exact:
      return e.exact >= value;
    case Figure::val_loss:
      return e.loss <= value;
  }
  return false;
}

StopRule parse_stop_rule(std::string_view text) {
  const auto equals = text.find('=');
  const std::string_view name = text.substr(0, equals);
  const std::string_view number = equals == std::string_view::npos ? "" : text.substr(equals + 1);
  for (const auto& [known, figure] : kFigures) {
    if (known != name) continue;
    StopRule rule = {.figure = figure};
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), rule.value);
    const bool is_number =
        error == std::errc() && end == number.data() + number.size() && std::isfinite(rule.value);
    const bool possible = figure == StopRule::Figure::val_loss || (rule.value >= 0 && rule.value <= 1);
    if (is_number && possible) return rule;
  }
  fail(
      "stop-when: `{}` is not accuracy=0.99, exact=1 or val_loss=0.5, with a number of your own; accuracy "
      "and exact lie between 0 and 1",
      text);
}

bool EvaluationHistory::add(Index step, const Evaluation& evaluation) {
  ++count;
  ++since_improvement;
  last = evaluation;
  if (!(evaluation.loss < best_loss)) return false;
  best_loss = evaluation.loss;
  best_step = step;
  since_improvement = 0;
  return true;
}

std::string stop_reason(std::string_view rule, Index patience, const EvaluationHistory& history) {
  if (history.count == 0) return "";
  if (!rule.empty() && parse_stop_rule(rule).holds(history.last)) return fmt::format("{} is reached", rule);
  if (patience > 0 && history.since_improvement >= patience) {
    return fmt::format("no better validation loss in {} evaluation{}", patience, patience == 1 ? "" : "s");
  }
  return "";
}

}  // namespace tilegrad::train
