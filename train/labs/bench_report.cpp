#include "tilegrad/train/labs/bench_report.h"

#include <algorithm>
#include <iterator>

#include "tilegrad/base/format.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/report/table.h"

namespace tilegrad::train {

namespace {

using nlohmann::ordered_json;

template <class T>
ordered_json or_null(const std::optional<T>& value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

// Four digits, and all of them before the point.
std::string number(double value) {
  return value < 1000 ? fmt::format("{:.4g}", value) : fmt::format("{:.0f}", value);
}

// A cell of a table or of a CSV file; `missing` where there is no number.
std::string number(const std::optional<double>& value, std::string_view missing) {
  return value ? number(*value) : std::string(missing);
}

std::vector<std::string> table_row(const PassReport& p, double peak_gflops) {
  std::vector<std::string> row = {fmt::format("{} {}", type_name(p.kernel), name(p.pass))};
  if (!p.ms) {
    row.insert(row.end(), {"-", "-", "-", "-", "-"});
  } else {
    row.insert(row.end(),
               {number(p.ms->median), fmt::format("{} to {}", number(p.ms->first), number(p.ms->third)),
                fmt::format("{:.1f}", *p.gflops()), fmt::format("{:.3f}", *p.gflops() / peak_gflops),
                format_bytes(*p.peak_bytes)});
  }
  row.push_back(format_bytes(static_cast<Index>(p.moved_bytes)));
  row.push_back(p.max_abs_diff ? fmt::format("{:.1e}", *p.max_abs_diff) : "-");
  return row;
}

// Forward, or forward and backward together.
struct Times {
  std::optional<double> naive, flash;
  bool flash_wins() const { return flash && (!naive || *flash < *naive); }
};

std::optional<double> sum(const std::optional<double>& a, const std::optional<double>& b) {
  return a && b ? std::optional(*a + *b) : std::nullopt;
}

Times forward_times(const SweepRow& row) { return {row.naive_forward, row.flash_forward}; }
Times both_times(const SweepRow& row) {
  return {sum(row.naive_forward, row.naive_backward), sum(row.flash_forward, row.flash_backward)};
}

// Where flash begins to win for good.
std::string winning_range(const std::vector<SweepRow>& rows, Times (*times)(const SweepRow&)) {
  const auto lost =
      std::find_if(rows.rbegin(), rows.rend(), [&](const SweepRow& row) { return !times(row).flash_wins(); });
  if (lost == rows.rbegin()) return fmt::format("at no T up to {}", rows.back().time);
  return fmt::format("from T = {} on", std::prev(lost)->time);
}

}  // namespace

std::string bench_table(const BenchReport& report) {
  std::vector<std::vector<std::string>> rows;
  for (const PassReport& pass : report.passes) rows.push_back(table_row(pass, report.peak_gflops));
  return format_table(
      {"type", "ms", "half of them in", "GFLOP/s", "of peak", "peak memory", "moved by model", "differs by"},
      rows);
}

ordered_json pass_json(const PassReport& p, double peak_gflops) {
  const auto gflops = p.gflops();
  return {{"type", type_name(p.kernel)},
          {"pass", name(p.pass)},
          {"threads", kernels::threads()},
          {"ms", p.ms ? ordered_json(p.ms->median) : ordered_json(nullptr)},
          {"gflops", or_null(gflops)},
          {"peak_gflops", peak_gflops},
          {"fraction", gflops ? ordered_json(*gflops / peak_gflops) : ordered_json(nullptr)},
          {"peak_bytes", or_null(p.peak_bytes)},
          {"max_abs_diff", or_null(p.max_abs_diff)}};
}

ChromeTrace bench_trace(const std::vector<TimedCall>& calls) {
  constexpr int kThread = 1;
  ChromeTrace trace;
  trace.process_name("tilegrad bench");
  trace.thread_name(kThread, "calls");
  for (const TimedCall& call : calls) {
    const double end_us = call.begin_us + 1e3 * call.ms;
    trace.add({.name = fmt::format("{} {}", type_name(call.kernel), name(call.pass)),
               .category = "attention",
               .begin_us = call.begin_us,
               .duration_us = 1e3 * call.ms,
               .thread = kThread,
               .details = {{"kernel", type_name(call.kernel)}, {"pass", name(call.pass)}}});
    // When the peak was reached is not known; it is drawn over the whole call.
    trace.counter("peak bytes", call.begin_us, static_cast<double>(call.peak_bytes));
    trace.counter("live bytes", call.begin_us, static_cast<double>(call.live_before));
    trace.counter("live bytes", end_us, static_cast<double>(call.live_after));
  }
  return trace;
}

SweepRow sweep_row(Index time, const BenchReport& report) {
  SweepRow row = {.time = time};
  for (const PassReport& p : report.passes) {
    const bool forward = p.pass == Pass::forward, naive = p.kernel == AttentionKernel::naive;
    auto& field = naive ? (forward ? row.naive_forward : row.naive_backward)
                        : (forward ? row.flash_forward : row.flash_backward);
    if (p.ms) field = p.ms->median;
  }
  return row;
}

std::string sweep_table(const std::vector<SweepRow>& rows) {
  std::vector<std::vector<std::string>> cells;
  for (const SweepRow& row : rows) {
    cells.push_back({fmt::format("{}", row.time), number(row.naive_forward, "-"),
                     number(row.flash_forward, "-"), number(row.naive_backward, "-"),
                     number(row.flash_backward, "-")});
  }
  return format_table({"T", "naive forward ms", "flash forward ms", "naive backward ms", "flash backward ms"},
                      cells);
}

std::string sweep_csv(const std::vector<SweepRow>& rows) {
  std::string csv = "T,naive_forward_ms,flash_forward_ms,naive_backward_ms,flash_backward_ms\n";
  for (const SweepRow& row : rows) {
    csv += fmt::format("{},{},{},{},{}\n", row.time, number(row.naive_forward, ""),
                       number(row.flash_forward, ""), number(row.naive_backward, ""),
                       number(row.flash_backward, ""));
  }
  return csv;
}

std::string sweep_verdict(const std::vector<SweepRow>& rows) {
  return fmt::format("flash is faster {} (forward), {} (forward + backward)",
                     winning_range(rows, forward_times), winning_range(rows, both_times));
}

}  // namespace tilegrad::train
