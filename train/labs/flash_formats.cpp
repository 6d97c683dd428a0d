#include "tilegrad/train/labs/flash_formats.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace tilegrad::train {

namespace {

struct Measured {
  const char* tensor;
  double FormatErrors::*value;
};
constexpr std::array kErrors = {Measured{"out", &FormatErrors::out}, Measured{"dq", &FormatErrors::dq},
                                Measured{"dk", &FormatErrors::dk}, Measured{"dv", &FormatErrors::dv}};

FlashTask stored_as(FlashTask task, Dtype dtype) {
  task.dtype = dtype;
  return task;
}

double largest_error(const FormatErrors& errors) {
  return std::max({errors.out, errors.dq, errors.dk, errors.dv});
}

// What is right to the last digit of a double has no error that could be measured.
double right_digits(double error) {
  constexpr double kSmallest = 1e-16;
  return std::max(0.0, -std::log10(std::max(error, kSmallest)));
}

}  // namespace

std::vector<Dtype> formats_of(std::string_view list) {
  constexpr std::array kKnown = {Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16};
  std::vector<Dtype> formats;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    const std::string_view name = list.substr(begin, end - begin);
    const auto known =
        std::find_if(kKnown.begin(), kKnown.end(), [&](Dtype dtype) { return to_string(dtype) == name; });
    check(known != kKnown.end(), "`{}` is not f32, f64, bf16 or f16", name);
    check(std::find(formats.begin(), formats.end(), *known) == formats.end(), "{} stands twice", name);
    formats.push_back(*known);
    begin = end + 1;
  }
  return formats;
}

std::vector<FormatRow> measure_formats(const FlashTask& task, const std::vector<Dtype>& formats,
                                       Index repeats, const LabOptions& options, const Console& console) {
  const Index keys = task.kv_seq > 0 ? task.kv_seq : task.seq;
  std::vector<Task> tasks;
  for (const Dtype dtype : formats) {
    tasks.push_back({.measurement = "attention",
                     .variant = fmt::format("{}-{}", dtype, task.seq),
                     .arguments = stored_as(task, dtype),
                     .repeats = repeats});
  }
  const auto results = measure_interleaved(options, tasks, console);
  std::vector<FormatRow> rows;
  for (std::size_t i = 0; i < formats.size(); ++i) {
    const auto costs = results[i].get<AttentionCosts>();
    check(costs.fits, "lab flash: attention in {} does not fit into memory at T = {}", formats[i], task.seq);
    const Task errors = {.measurement = "format", .arguments = stored_as(task, formats[i])};
    rows.push_back(
        {.dtype = formats[i],
         .qkv_bytes = (task.seq + 2 * keys) * task.batch * task.heads * task.head_size * bytes_of(formats[i]),
         .peak = costs.forward_peak,
         .forward = timing_of(costs.forward_ms, options.rounds),
         .errors = measure_in_child(options, errors).get<FormatErrors>()});
  }
  return rows;
}

std::vector<Column<FormatRow>> format_columns() {
  std::vector<Column<FormatRow>> columns = {
      {"format", "dtype", [](const FormatRow& r) { return to_string(r.dtype); }},
      {"bytes of q, k, v", "qkv_bytes", &FormatRow::qkv_bytes, bytes},
      {"peak tracked", "peak_bytes", &FormatRow::peak, bytes},
      {"ms forward", "forward_ms", [](const FormatRow& r) { return r.forward.ms; }, number("{:.2f}")},
      {"spread, ms", "spread_ms", [](const FormatRow& r) { return r.forward.spread_ms; }, number("{:.2f}")}};
  for (const Measured& error : kErrors) {
    columns.push_back({fmt::format("error of {}", error.tensor), fmt::format("{}_error", error.tensor),
                       [value = error.value](const FormatRow& r) { return r.errors.*value; },
                       number("{:.1e}")});
  }
  columns.push_back({"overflows", "overflows", [](const FormatRow& r) {
                       return is_narrow(r.dtype) ? OrderedJson(r.errors.overflows) : OrderedJson();
                     }});
  return columns;
}

std::string format_finding(const std::vector<FormatRow>& rows) {
  std::string errors, overflows;
  for (const FormatRow& row : rows) {
    errors += fmt::format("{}{} {:.1e}", errors.empty() ? "" : ", ", row.dtype, largest_error(row.errors));
    if (row.errors.overflows > 0) {
      overflows += fmt::format("; {} overflowed {} times", row.dtype, row.errors.overflows);
    }
  }
  return "largest relative error of out and gradients: " + errors + overflows;
}

Chart format_chart(const std::vector<FormatRow>& rows) {
  Chart chart = {
      .title = "Digits that are right, by number format",
      .note = "−log₁₀ of the relative errors in the table; 0 where a result is Inf or NaN, 16 at most.",
      .kind = Chart::Kind::bars,
      .x = {.title = "result"},
      .y = {.title = "decimal digits"}};
  for (const Measured& error : kErrors) chart.categories.emplace_back(error.tensor);
  for (const FormatRow& row : rows) {
    Series series = {.name = std::string(to_string(row.dtype))};
    for (const Measured& error : kErrors) {
      series.points.emplace_back(static_cast<double>(series.points.size()),
                                 right_digits(row.errors.*error.value));
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

}  // namespace tilegrad::train
