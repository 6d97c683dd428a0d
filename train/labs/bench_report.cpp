#include "tilegrad/train/labs/bench_report.h"

#include <algorithm>

#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/labs/columns.h"
#include "tilegrad/train/labs/lab_duration.h"
#include "tilegrad/train/labs/speed_finding.h"
#include "tilegrad/train/labs/whys.h"
#include "tilegrad/train/measure/chrome_trace.h"
#include "tilegrad/train/measure/system.h"
#include "tilegrad/train/run/names.h"

namespace tilegrad::train {

namespace {

// Four digits, and all of them before the point.
std::string four_digits(double value) {
  return value < 1000 ? fmt::format("{:.4g}", value) : fmt::format("{:.0f}", value);
}
std::string show_four_digits(const OrderedJson& value) { return four_digits(value.get<double>()); }

std::vector<Column<PassReport>> pass_columns() {
  const auto median_ms = [](const PassReport& p) {
    return p.ms() ? OrderedJson(p.ms()->median) : OrderedJson();
  };
  const auto middle_half = [](const PassReport& p) {
    if (!p.ms()) return OrderedJson();
    return OrderedJson(fmt::format("{} to {}", four_digits(p.ms()->first), four_digits(p.ms()->third)));
  };
  return {
      {"pass", "",
       [](const PassReport& p) { return fmt::format("{} {}", name_of(p.kernel), to_string(p.phase)); }},
      {"", "type", [](const PassReport& p) { return name_of(p.kernel); }},
      {"", "pass", [](const PassReport& p) { return to_string(p.phase); }},
      {"", "threads", [](const PassReport&) { return kernels::threads(); }},
      {"ms", "ms", median_ms, show_four_digits},
      {"half of them in", "", middle_half},
      {"GFLOP/s", "gflops", [](const PassReport& p) { return or_null(p.gflops()); }, number("{:.1f}")},
      {"", "peak_gflops", &PassReport::peak_gflops},
      {"of peak", "fraction", [](const PassReport& p) { return or_null(p.fraction()); }, number("{:.3f}")},
      {"peak memory", "peak_bytes", [](const PassReport& p) { return or_null(p.peak_bytes); }, bytes},
      {"moved by model", "", &PassReport::moved_bytes, bytes},
      {"differs by", "max_abs_diff", [](const PassReport& p) { return or_null(p.max_abs_diff); },
       number("{:.1e}")}};
}

std::vector<double> sum(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> sums(std::min(a.size(), b.size()));
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = a[i] + b[i];
  return sums;
}

// What naive cannot do at all, flash does faster.
bool flash_wins(const std::vector<double>& naive, const std::vector<double>& flash,
                const std::vector<std::size_t>& looks) {
  return !flash.empty() && (naive.empty() || sequential_sign_test(flash, naive, looks) == Verdict::less);
}

std::string winning_range(const std::vector<SweepRow>& rows, const std::vector<bool>& won) {
  const auto first = first_lasting_win(won);
  return first ? fmt::format("from T = {} on", rows[*first].time)
               : fmt::format("at no T up to {}", rows.back().time);
}

std::vector<Column<SweepRow>> sweep_columns() {
  const auto median_of = [](std::vector<double> SweepRow::*times) {
    return [times](const SweepRow& row) {
      return (row.*times).empty() ? OrderedJson() : OrderedJson(four_digits(median(row.*times)));
    };
  };
  return {{"T", "T", &SweepRow::time},
          {"naive forward ms", "naive_forward_ms", median_of(&SweepRow::naive_forward)},
          {"flash forward ms", "flash_forward_ms", median_of(&SweepRow::flash_forward)},
          {"naive backward ms", "naive_backward_ms", median_of(&SweepRow::naive_backward)},
          {"flash backward ms", "flash_backward_ms", median_of(&SweepRow::flash_backward)}};
}

}  // namespace

std::string bench_plan(const BenchCase& bench, std::size_t lengths) {
  std::string names;
  for (const AttentionKernel kernel : bench.kernels)
    names += fmt::format("{}{}", names.empty() ? "" : " and ", name_of(kernel));
  const double asked = bench.seconds * static_cast<double>(bench.kernels.size() * lengths);
  const bool compared = bench.kernels.size() > 1;
  const Expected expected = {.seconds = asked, .undecided = compared ? kBenchLooks.back() * asked : asked};
  return fmt::format("{}, {}at least {} calls{}: {}\n", names, compared ? "interleaved, " : "", kFewestCalls,
                     compared ? " of each" : "", describe(expected));
}

std::string bench_table(const BenchReport& report) {
  const Table table = table_of("", pass_columns(), report.passes);
  return format_table(table.columns, table.rows);
}

std::string bench_json_lines(const BenchReport& report) {
  std::string lines;
  for (const PassReport& pass : report.passes) {
    OrderedJson line = json_of(pass_columns(), pass);
    line["share_of_others"] = or_null(report.share_of_others);
    lines += line.dump() + "\n";
  }
  return lines;
}

std::string bench_finding(const BenchReport& report) {
  const SweepRow row = sweep_row(0, report);
  if (row.naive_forward.empty() || row.flash_forward.empty()) return "";
  const auto finding = [&](const std::vector<double>& flash, const std::vector<double>& naive) {
    return speed_finding("flash", "naive", flash, naive, sequential_sign_test(flash, naive, row.looks));
  };
  std::string text = finding(row.flash_forward, row.naive_forward) + " (forward)";
  if (!row.flash_backward.empty())
    text += ", " + finding(row.flash_backward, row.naive_backward) + " (backward)";
  return text;
}

std::string bench_whys(const BenchCase& bench) {
  if (bench.kernels.size() < 2) return "";
  std::string text;
  for (const Phase phase : {Phase::forward, Phase::backward}) {
    if (phase == Phase::backward && !bench.backward) continue;
    const auto why = why_as_many_bytes(bench.problem, phase, l2_bytes());
    if (why) text += fmt::format("{}: {}\n", why->result, why->reason);
  }
  return text;
}

void write_bench_trace(const std::filesystem::path& file, const std::vector<TimedCall>& calls) {
  constexpr int kThread = 1;
  ChromeTrace trace;
  trace.process_name("tilegrad bench");
  trace.thread_name(kThread, "calls");
  for (const TimedCall& call : calls) {
    const double end_us = call.begin_us + 1e3 * call.ms;
    trace.add({.name = fmt::format("{} {}", name_of(call.kernel), to_string(call.phase)),
               .category = "attention",
               .begin_us = call.begin_us,
               .duration_us = 1e3 * call.ms,
               .thread = kThread,
               .details = {{"kernel", name_of(call.kernel)}, {"pass", to_string(call.phase)}}});
    // When the peak was reached is not known; it is drawn over the whole call.
    trace.counter("peak bytes", call.begin_us, static_cast<double>(call.peak_bytes));
    trace.counter("live bytes", call.begin_us, static_cast<double>(call.live_before));
    trace.counter("live bytes", end_us, static_cast<double>(call.live_after));
  }
  trace.write(file);
}

SweepRow sweep_row(Index time, const BenchReport& report) {
  SweepRow row = {.time = time, .looks = report.looks};
  for (const PassReport& p : report.passes) {
    const bool forward = p.phase == Phase::forward, naive = p.kernel == AttentionKernel::naive;
    auto& field = naive ? (forward ? row.naive_forward : row.naive_backward)
                        : (forward ? row.flash_forward : row.flash_backward);
    field = p.times_ms;
  }
  return row;
}

std::string sweep_table(const std::vector<SweepRow>& rows) {
  const Table table = table_of("", sweep_columns(), rows);
  return format_table(table.columns, table.rows);
}

std::string sweep_csv(const std::vector<SweepRow>& rows) { return csv_of(json_of(sweep_columns(), rows)); }

std::string sweep_verdict(const std::vector<SweepRow>& rows) {
  std::vector<bool> forward, both;
  for (const SweepRow& row : rows) {
    forward.push_back(flash_wins(row.naive_forward, row.flash_forward, row.looks));
    both.push_back(flash_wins(sum(row.naive_forward, row.naive_backward),
                              sum(row.flash_forward, row.flash_backward), row.looks));
  }
  return fmt::format("flash is faster {} (forward), {} (forward + backward)", winning_range(rows, forward),
                     winning_range(rows, both));
}

}  // namespace tilegrad::train
