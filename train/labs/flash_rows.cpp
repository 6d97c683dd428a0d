#include "tilegrad/train/labs/flash_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/labs/flash_pictures.h"
#include "tilegrad/train/measure/best_peak.h"
#include "tilegrad/train/measure/statistics.h"

namespace tilegrad::train {

namespace {

// The median over the rounds.
double backward_ms(const FlashRow& forward, const FlashRow& both) {
  std::vector<double> ms = both.time.round_ms;
  for (std::size_t i = 0; i < ms.size(); ++i) ms[i] -= forward.time.round_ms[i];
  return median(ms);
}

}  // namespace

Machine machine_of(const MachineSpeeds& speeds, Dtype dtype) {
  const auto best = [](const std::vector<double>& tries) {
    return *std::max_element(tries.begin(), tries.end());
  };
  const double measured = best(dtype == Dtype::f64 ? speeds.f64_gflops : speeds.f32_gflops);
  return {.gflops = best_peak(measured, to_string(compute_dtype(dtype)), kernels::threads()),
          .gbytes_per_s = best(speeds.gbytes_per_s),
          .l2 = speeds.l2_bytes,
          .processor = speeds.processor};
}

std::array<FlashRow, 2> rows_of(const FlashTask& task, const AttentionCosts& costs, Index l2, int rounds) {
  const AttentionProblem problem = task.problem();
  FlashRow forward = {.seq = task.seq,
                      .kernel = task.kernel,
                      .mine = !task.mine.empty(),
                      .time = timing_of(costs.forward_ms, rounds),
                      .peak = costs.forward_peak,
                      .peak_rss = costs.peak_rss,
                      .moved = moved_bytes(problem, task.kernel, Phase::forward, l2),
                      .operations = attention_flops(problem, Phase::forward)};
  FlashRow both = forward;
  both.backward = true;
  both.time = timing_of(costs.step_ms, rounds);
  both.peak = costs.step_peak;
  both.moved += moved_bytes(problem, task.kernel, Phase::backward, l2);
  both.operations += attention_flops(problem, Phase::backward);
  return {forward, both};
}

std::vector<Column<FlashRow>> columns_of(const Machine& machine) {
  const double peak = machine.gflops, bandwidth = machine.gbytes_per_s;
  return {
      {"T", "seq", &FlashRow::seq},
      {"kernel", "kernel", [](const FlashRow& r) { return r.name(); }},
      {"pass", "pass", [](const FlashRow& r) { return r.pass(); }},
      {"ms", "ms", [](const FlashRow& r) { return r.time.ms; }, number("{:.2f}")},
      {"spread, ms", "spread_ms", [](const FlashRow& r) { return r.time.spread_ms; }, number("{:.2f}")},
      {"peak tracked", "peak_bytes", &FlashRow::peak, bytes},
      {"peak RSS", "peak_rss_bytes", &FlashRow::peak_rss, bytes},
      {"bytes moved", "moved_bytes", &FlashRow::moved, bytes},
      {"", "operations", &FlashRow::operations},
      {"flop per byte", "operations_per_byte", [](const FlashRow& r) { return r.operations / r.moved; },
       number("{:.1f}")},
      {"GFLOP/s", "gflops", &FlashRow::gflops, number("{:.1f}")},
      {"of FMA peak", "fma_peak_percent", [peak](const FlashRow& r) { return 100 * r.gflops() / peak; },
       number("{:.1f} %")},
      {"", "gbytes_per_s", &FlashRow::gbytes_per_s},
      {"of memory peak", "memory_peak_percent",
       [bandwidth](const FlashRow& r) { return 100 * r.gbytes_per_s() / bandwidth; }, number("{:.1f} %")}};
}

std::string describe(const Machine& machine, Dtype dtype) {
  return fmt::format("{}: {:.0f} GFLOP/s of {} FMA, {:.1f} GB/s from memory, L2 {}", machine.processor,
                     machine.gflops, to_string(compute_dtype(dtype)), machine.gbytes_per_s,
                     format_bytes(machine.l2));
}

std::vector<Column<TensorErrors>> accuracy_columns() {
  // In f64 naive attention is its own reference: there is no error to compare with. Nor is there if a result is Inf.
  const auto quotient = [](const TensorErrors& e) {
    const double ratio = e.flash_error / e.naive_error;
    return std::isfinite(ratio) ? OrderedJson(ratio) : OrderedJson();
  };
  const Show small = number("{:.1e}");
  return {{"tensor", "tensor", &TensorErrors::tensor},
          {"max abs difference", "max_abs_difference", &TensorErrors::max_abs_difference, small},
          {"of the largest element", "max_rel_difference", &TensorErrors::max_rel_difference, small},
          {"error of naive", "naive_error", &TensorErrors::naive_error, small},
          {"error of flash", "flash_error", &TensorErrors::flash_error, small},
          {"flash / naive", "", quotient, number("{:.2f}")}};
}

Chart roofline_of(const Machine& machine, const std::vector<FlashRow>& rows) {
  std::vector<RooflinePoint> points;
  for (std::size_t i = 0; i + 1 < rows.size(); i += 2) {
    const FlashRow &forward = rows[i], &both = rows[i + 1];
    points.push_back(
        {fmt::format("{}, forward", forward.name()), forward.operations / forward.moved, forward.gflops()});
    const double ms = backward_ms(forward, both), operations = both.operations - forward.operations;
    if (ms > 0) {
      points.push_back({fmt::format("{}, backward", both.name()), operations / (both.moved - forward.moved),
                        operations / ms / 1e6});
    }
  }
  Chart chart = roofline(machine.gflops, machine.gbytes_per_s, points);
  chart.note += " The time of backward is that of both passes less that of forward, round by round.";
  return chart;
}

}  // namespace tilegrad::train
