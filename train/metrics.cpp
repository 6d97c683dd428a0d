#include "train/metrics.h"

#include <cerrno>
#include <cstring>
#include <functional>
#include <string_view>

#include "base/error.h"
#include "base/file.h"

namespace tilegrad::train {

namespace {

using nlohmann::ordered_json;

// Calls f(text, json) for every complete line; what follows the last line break was written by half.
void for_each_line(const std::filesystem::path& file,
                   const std::function<void(std::string_view text, const ordered_json& json)>& f) {
  const std::string content = read_file(file);
  std::string_view rest = content;
  for (Index number = 1;; ++number) {
    const auto end = rest.find('\n');
    if (end == std::string_view::npos) return;
    const std::string_view text = rest.substr(0, end + 1);
    rest.remove_prefix(end + 1);
    const ordered_json json = ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
    check(json.is_object() && json.contains("step") && json["step"].is_number_integer(),
          "{}: line {} is not a JSON object with a step", file.string(), number);
    f(text, json);
  }
}

// A number of a line; 0 if it is missing or null, as a NaN is written.
template <class T>
T number(const ordered_json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number() ? found->get<T>() : T{};
}

}  // namespace

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
  write_line({{"step", r.step},
              {"loss", r.loss},
              {"lr", r.lr},
              {"grad_norm", r.grad_norm},
              {"ms", r.ms},
              {"tokens_per_s", r.tokens_per_s},
              {"live_bytes", r.live_bytes},
              {"peak_bytes", r.peak_bytes}});
}

void MetricsWriter::write(Index step, double train_loss, const Evaluation& e) {
  write_line({{"step", step},
              {"train_loss", train_loss},
              {"val_loss", e.loss},
              {"accuracy", e.accuracy},
              {"exact", e.exact}});
}

void keep_metrics_until(const std::filesystem::path& file, Index step) {
  if (!std::filesystem::exists(file)) return;
  std::string kept;
  for_each_line(file, [&](std::string_view text, const ordered_json& json) {
    if (json["step"].get<Index>() <= step) kept += text;
  });
  write_file(file, kept);
}

Metrics read_metrics(const std::filesystem::path& file) {
  Metrics metrics;
  if (!std::filesystem::exists(file)) return metrics;
  for_each_line(file, [&](std::string_view, const ordered_json& json) {
    const auto step = json["step"].get<Index>();
    if (json.contains("val_loss")) {
      metrics.evaluations.push_back({.step = step,
                                     .train_loss = number<double>(json, "train_loss"),
                                     .val_loss = number<double>(json, "val_loss"),
                                     .accuracy = number<double>(json, "accuracy"),
                                     .exact = number<double>(json, "exact")});
    } else {
      metrics.steps.push_back({.step = step,
                               .loss = number<double>(json, "loss"),
                               .lr = number<double>(json, "lr"),
                               .grad_norm = number<double>(json, "grad_norm"),
                               .ms = number<double>(json, "ms"),
                               .tokens_per_s = number<double>(json, "tokens_per_s"),
                               .live_bytes = number<Index>(json, "live_bytes"),
                               .peak_bytes = number<Index>(json, "peak_bytes")});
    }
  });
  return metrics;
}

}  // namespace tilegrad::train
