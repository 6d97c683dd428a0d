#include "tilegrad/train/run/metrics.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>

#include "tilegrad/base/error.h"
#include "tilegrad/base/file.h"
#include "tilegrad/base/json.h"
#include "tilegrad/train/measure/statistics.h"

namespace tilegrad::train {

namespace {

using nlohmann::ordered_json;

bool has_step(const ordered_json& json) {
  return json.is_object() && json.contains("step") && json["step"].is_number_unsigned() &&
         json["step"].get<std::uint64_t>() <= std::uint64_t{std::numeric_limits<Index>::max()};
}

// Calls f with every line, each of which must have a step.
template <class F>
void for_each_step_line(const std::filesystem::path& file, F&& f) {
  for_each_json_line(file, [&](const JsonLine& line) {
    check(has_step(line.json), "{}: line {} is not a JSON object with a step", file.string(), line.number);
    f(line);
  });
}

// A number of a line; NaN, which is written as null, if there is none.
double number(const ordered_json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number() ? found->get<double>() : std::nan("");
}

// A number of bytes; 0 if there is none.
Index bytes(const ordered_json& json, std::string_view key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number_integer() ? found->get<Index>() : 0;
}

ordered_json by_category(const memory::ByCategory& bytes_of) {
  ordered_json json;
  for (std::size_t i = 0; i < memory::kCategories; ++i) {
    json[memory::to_string(static_cast<memory::Category>(i))] = bytes_of[i];
  }
  return json;
}

memory::ByCategory by_category(const ordered_json& line, const char* key) {
  memory::ByCategory result{};
  const auto found = line.find(key);
  if (found == line.end() || !found->is_object()) return result;
  for (std::size_t i = 0; i < memory::kCategories; ++i) {
    result[i] = bytes(*found, memory::to_string(static_cast<memory::Category>(i)));
  }
  return result;
}

bool is_evaluation(const ordered_json& line) {
  return line.contains("kind") ? line["kind"] == "evaluation" : line.contains("val_loss");
}

void add_line(Metrics& metrics, const ordered_json& json) {
  const auto step = json["step"].get<Index>();
  if (is_evaluation(json)) {
    metrics.evaluations.push_back({.step = step,
                                   .train_loss = number(json, "train_loss"),
                                   .val_loss = number(json, "val_loss"),
                                   .accuracy = number(json, "accuracy"),
                                   .exact = number(json, "exact")});
  } else {
    metrics.steps.push_back({.step = step,
                             .loss = number(json, "loss"),
                             .lr = number(json, "lr"),
                             .grad_norm = number(json, "grad_norm"),
                             .ms = number(json, "ms"),
                             .tokens_per_s = number(json, "tokens_per_s"),
                             .live_bytes = bytes(json, "live_bytes"),
                             .peak_bytes = bytes(json, "peak_bytes"),
                             .at_peak = by_category(json, "at_peak")});
  }
}

}  // namespace

MetricsSummary summary_of(const Metrics& metrics) {
  MetricsSummary summary;
  std::vector<double> ms, tokens;
  for (const StepReport& step : metrics.steps) {
    if (std::isfinite(step.ms)) ms.push_back(step.ms);
    if (std::isfinite(step.tokens_per_s)) tokens.push_back(step.tokens_per_s);
    if (step.peak_bytes > summary.highest.peak_bytes) summary.highest = step;
  }
  summary.ms_per_step = median(std::move(ms));
  summary.tokens_per_s = median(std::move(tokens));
  if (!metrics.evaluations.empty()) summary.last = metrics.evaluations.back();
  return summary;
}

MetricsWriter::MetricsWriter(const std::filesystem::path& file, Start start)
    : file_(file), out_(file, start == Start::append ? std::ios::app : std::ios::trunc) {
  check(out_.is_open(), "{}: cannot be written: {}", file_.string(), std::strerror(errno));
}

void MetricsWriter::write_line(const ordered_json& line) {
  errno = 0;
  out_ << line.dump() << '\n' << std::flush;
  check(out_.good(), "{}: cannot be written: {}", file_.string(),
        errno != 0 ? std::strerror(errno) : "unknown reason");
}

void MetricsWriter::write(const StepReport& r) {
  write_line({{"kind", "step"},
              {"step", r.step},
              {"loss", r.loss},
              {"lr", r.lr},
              {"grad_norm", r.grad_norm},
              {"ms", r.ms},
              {"tokens_per_s", r.tokens_per_s},
              {"live_bytes", r.live_bytes},
              {"peak_bytes", r.peak_bytes},
              {"at_peak", by_category(r.at_peak)}});
}

void MetricsWriter::write(Index step, double train_loss, const Evaluation& e) {
  write_line({{"kind", "evaluation"},
              {"step", step},
              {"train_loss", train_loss},
              {"val_loss", e.loss},
              {"accuracy", e.accuracy},
              {"exact", e.exact}});
}

std::string keep_metrics_until(const std::filesystem::path& file, Index step) {
  if (!std::filesystem::exists(file)) {
    return fmt::format("{}: is missing; the steps up to {} will have no metrics", file.string(), step);
  }
  std::string kept;
  Index damaged = 0, first = 0;
  for_each_json_line(file, [&](const JsonLine& line) {
    if (!has_step(line.json)) {
      if (++damaged == 1) first = line.number;
    } else if (line.json["step"].get<Index>() <= step) {
      kept += line.text;
    }
  });
  write_file(file, kept);
  if (damaged == 0) return "";
  return fmt::format("{}: {} damaged line{}, the first is line {}; dropped", file.string(), damaged,
                     damaged == 1 ? "" : "s", first);
}

Metrics read_metrics(const std::filesystem::path& file) {
  Metrics metrics;
  if (!std::filesystem::exists(file)) return metrics;
  for_each_step_line(file, [&](const JsonLine& line) { add_line(metrics, line.json); });
  return metrics;
}

Metrics read_metrics(const std::filesystem::path& file, std::vector<std::string>& damage) {
  Metrics metrics;
  read_json_lines(
      file,
      [&](const ordered_json& json) {
        if (has_step(json)) add_line(metrics, json);
        return has_step(json);
      },
      damage);
  return metrics;
}

}  // namespace tilegrad::train
