#include "tilegrad/train/labs/flash.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/base/format.h"
#include "tilegrad/train/labs/probes.h"
#include "tilegrad/train/measure/attention_cost.h"
#include "tilegrad/train/measure/speed.h"
#include "tilegrad/train/measure/system.h"
#include "tilegrad/train/measure/tensor_difference.h"
#include "tilegrad/train/run/names.h"

namespace tilegrad::train {

namespace {

constexpr std::array kKernels = {AttentionKernel::naive, AttentionKernel::flash};

Tensor normal(const Shape& shape, Dtype dtype, RandomKey key) {
  return Tensor::normal(shape, compute_dtype(dtype), key).cast(dtype);
}

// Random q, k, v and the gradient of out, all (B, T, H, D); the same numbers in every dtype up to rounding.
struct Problem {
  Problem(const Json& task, Dtype dtype)
      : shape{task.at("batch").get<Index>(), task.at("seq").get<Index>(), task.at("heads").get<Index>(),
              task.at("d").get<Index>()},
        options{.causal = task.at("causal").get<bool>()} {
    const RandomKey key{task.at("seed").get<std::uint64_t>()};
    for (std::uint64_t i = 0; i < qkv.size(); ++i) qkv[i] = Var::leaf(normal(shape, dtype, key.fold(i)));
    dout = normal(shape, dtype, key.fold(qkv.size()));
  }

  Tensor forward(AttentionKernel kernel) const {
    return attention(qkv[0], qkv[1], qkv[2], kernel, options).value();
  }

  // Forward and backward; the gradients are left in q, k, v.
  void step(AttentionKernel kernel) const {
    for (const Var& x : qkv) x.cell()->grad = Tensor();
    Tape tape;
    tape.backward(attention(qkv[0], qkv[1], qkv[2], kernel, options), dout);
  }

  Shape shape;
  AttentionOptions options;
  std::array<Var, 3> qkv;
  Tensor dout;
};

Dtype dtype_of_task(const Json& task) { return dtype_of_flash_lab(task.at("dtype").get<std::string>()); }

// out, dq, dk, dv.
std::array<Tensor, 4> results_of(const Json& task, AttentionKernel kernel, Dtype dtype) {
  const Problem problem(task, dtype);
  problem.step(kernel);
  return {problem.forward(kernel), problem.qkv[0].grad(), problem.qkv[1].grad(), problem.qkv[2].grad()};
}

double largest(const Tensor& x) {
  double most = 0;
  for (Index i = 0; i < x.size(); ++i) most = std::max(most, std::abs(x.at(i)));
  return most;
}

template <class F>
Index peak_of(F&& f) {
  memory::reset_peak();
  f();
  return memory::usage().peak;
}

}  // namespace

Json probe_attention(const Json& task) {
  const auto kernel = value_of<AttentionKernel>("kernel", task.at("kernel").get<std::string>());
  if (task.contains("memory_limit")) memory::set_limit(task.at("memory_limit").get<Index>());
  try {
    const Problem problem(task, dtype_of_task(task));
    problem.forward(kernel);  // makes the scratch memory that threads keep
    const Index forward_peak = peak_of([&] { problem.forward(kernel); });
    const Index step_peak = peak_of([&] { problem.step(kernel); });
    return {{"fits", true},
            {"forward_peak", forward_peak},
            {"step_peak", step_peak},
            {"forward_ms", time_calls(task, "forward", [&] { problem.forward(kernel); })},
            {"step_ms", time_calls(task, "step", [&] { problem.step(kernel); })}};
  } catch (const memory::OutOfMemory&) {
    return {{"fits", false}};
  }
}

Json probe_accuracy(const Json& task) {
  const Dtype dtype = dtype_of_task(task);
  const auto naive = results_of(task, AttentionKernel::naive, dtype);
  const auto flash = results_of(task, AttentionKernel::flash, dtype);
  const auto exact = results_of(task, AttentionKernel::naive, Dtype::f64);
  constexpr std::array kNamesOfResults = {"out", "dq", "dk", "dv"};
  Json rows = Json::array();
  for (std::size_t i = 0; i < naive.size(); ++i) {
    const double difference = largest_difference(naive[i], flash[i]);
    rows.push_back({{"tensor", kNamesOfResults[i]},
                    {"max_abs_difference", difference},
                    {"max_rel_difference", difference / largest(exact[i])},
                    {"naive_error", largest_difference(naive[i], exact[i])},
                    {"flash_error", largest_difference(flash[i], exact[i])}});
  }
  return {{"accuracy", rows}};
}

// The best of all tries in all rounds is the machine's; see machine/speed.h.
Json probe_machine(const Json&) {
  const auto tries = [](double (*speed)()) {
    std::vector<double> speeds(10);
    std::generate(speeds.begin(), speeds.end(), speed);
    return speeds;
  };
  return {{"f32_gflops", tries(fma_gflops<float>)},
          {"f64_gflops", tries(fma_gflops<double>)},
          {"gbytes_per_s", {read_bandwidth()}},
          {"l2_bytes", l2_bytes()},
          {"processor", processor_name()}};
}

namespace {

struct Machine {
  double gflops = 0;        // of the type that the dtype computes in
  double gbytes_per_s = 0;  // from memory
  Index l2 = 0;             // bytes
  std::string processor;
};

// One pass of one kernel at one length.
struct Row {
  Index seq = 0;
  AttentionKernel kernel = AttentionKernel::flash;
  bool backward = false;  // forward and backward, or forward alone
  Timing time = {};
  Index peak = 0, peak_rss = 0;      // bytes
  double moved = 0, operations = 0;  // of attention_traffic.h and attention_cost.h

  double intensity() const { return operations / moved; }
  double gflops() const { return operations / time.ms / 1e6; }
  double gbytes_per_s() const { return moved / time.ms / 1e6; }
  std::string pass() const { return backward ? "forward + backward" : "forward"; }
};

Json to_json(const FlashLab& lab) {
  return {{"seq", lab.seq},         {"d", lab.d},           {"heads", lab.heads},
          {"batch", lab.batch},     {"causal", lab.causal}, {"dtype", to_string(lab.dtype)},
          {"repeats", lab.repeats}, {"seed", lab.seed}};
}

Json task_of(const FlashLab& lab, const std::string& probe) {
  Json task = to_json(lab);
  task["probe"] = probe;
  return task;
}

Json attention_task(const FlashLab& lab, AttentionKernel kernel, Index seq) {
  Json task = task_of(lab, "attention");
  task["kernel"] = name_of(kernel);
  task["seq"] = seq;
  task["label"] = fmt::format("{}-{}", name_of(kernel), seq);
  return task;
}

double best_of(const Json& list) {
  const auto values = list.get<std::vector<double>>();
  return *std::max_element(values.begin(), values.end());
}

Machine machine_of(const Json& result, Dtype dtype) {
  return {.gflops = best_of(result.at(dtype == Dtype::f64 ? "f64_gflops" : "f32_gflops")),
          .gbytes_per_s = best_of(result.at("gbytes_per_s")),
          .l2 = result.at("l2_bytes").get<Index>(),
          .processor = result.at("processor").get<std::string>()};
}

// The rows of forward, and of forward and backward.
std::array<Row, 2> rows_of(const FlashLab& lab, AttentionKernel kernel, Index seq, const Json& result,
                           Index l2) {
  const AttentionSizes sizes = {.batch = lab.batch,
                                .heads = lab.heads,
                                .kv_heads = lab.heads,
                                .tq = seq,
                                .tk = seq,
                                .dim = lab.d,
                                .pairs = visible_pairs(seq, seq, {.causal = lab.causal})};
  std::array<Row, 2> rows;
  double moved = 0, operations = 0;
  for (const bool backward : {false, true}) {
    const Pass pass = backward ? Pass::backward : Pass::forward;
    moved += moved_bytes(sizes, kernel, pass, lab.dtype, l2);
    operations += attention_flops(sizes, pass);
    rows[backward] = {.seq = seq,
                      .kernel = kernel,
                      .backward = backward,
                      .time = timing_of(result.at(backward ? "step_ms" : "forward_ms")),
                      .peak = result.at(backward ? "step_peak" : "forward_peak").get<Index>(),
                      .peak_rss = result.at("peak_rss").get<Index>(),
                      .moved = moved,
                      .operations = operations};
  }
  return rows;
}

Json json_of(const Row& row, const Machine& machine) {
  return {{"seq", row.seq},
          {"kernel", name_of(row.kernel)},
          {"pass", row.pass()},
          {"ms", row.time.ms},
          {"spread_ms", row.time.spread_ms},
          {"peak_bytes", row.peak},
          {"peak_rss_bytes", row.peak_rss},
          {"moved_bytes", row.moved},
          {"operations", row.operations},
          {"operations_per_byte", row.intensity()},
          {"gflops", row.gflops()},
          {"fma_peak_percent", 100 * row.gflops() / machine.gflops},
          {"gbytes_per_s", row.gbytes_per_s()},
          {"memory_peak_percent", 100 * row.gbytes_per_s() / machine.gbytes_per_s}};
}

Table speed_table(const std::string& title, const std::vector<Row>& rows, const Machine& machine) {
  Table table = {.title = title,
                 .columns = {"kernel", "T", "pass", "ms", "spread, ms", "peak tracked", "peak RSS",
                             "bytes moved", "flop a byte", "GFLOP/s", "of FMA peak", "of memory peak"},
                 .rows = {}};
  for (const Row& r : rows) {
    table.rows.push_back(
        {std::string(name_of(r.kernel)), fmt::format("{}", r.seq), r.pass(), fmt::format("{:.2f}", r.time.ms),
         fmt::format("{:.2f}", r.time.spread_ms), format_bytes(r.peak), format_bytes(r.peak_rss),
         format_bytes(static_cast<Index>(r.moved)), fmt::format("{:.1f}", r.intensity()),
         fmt::format("{:.1f}", r.gflops()), fmt::format("{:.1f} %", 100 * r.gflops() / machine.gflops),
         fmt::format("{:.1f} %", 100 * r.gbytes_per_s() / machine.gbytes_per_s)});
  }
  return table;
}

// In f64 naive attention is its own reference: there is no error to compare with.
std::string ratio_of_errors(const Json& row) {
  const auto naive = row.at("naive_error").get<double>();
  return naive == 0 ? "-" : fmt::format("{:.2f}", row.at("flash_error").get<double>() / naive);
}

Table accuracy_table(const Json& accuracy) {
  Table table = {.title = "Differences, and errors against naive attention in f64",
                 .columns = {"tensor", "max abs difference", "of the largest element", "error of naive",
                             "error of flash", "flash / naive"},
                 .rows = {}};
  for (const Json& row : accuracy) {
    const auto number = [&](const char* key) { return fmt::format("{:.1e}", row.at(key).get<double>()); };
    table.rows.push_back({row.at("tensor").get<std::string>(), number("max_abs_difference"),
                          number("max_rel_difference"), number("naive_error"), number("flash_error"),
                          ratio_of_errors(row)});
  }
  return table;
}

// 64, 96, 128, 192, 256 ...: each length about 1.4 times the one before.
Index next_length(Index seq) { return (seq & (seq - 1)) == 0 ? seq / 2 * 3 : seq / 3 * 4; }

struct Sweep {
  std::vector<Row> rows;
  std::string end;  // why it ended
};

// Naive attention comes first and ends the sweep in nearly all cases; the reason that came first stays.
void add_length(const FlashLab& lab, AttentionKernel kernel, Index seq, const Json& result, Index l2,
                Sweep& sweep) {
  std::string end;
  if (!result.at("fits").get<bool>()) {
    end =
        fmt::format("{} needs more than {} at T = {}", name_of(kernel), format_bytes(lab.memory_limit), seq);
  } else {
    for (const Row& row : rows_of(lab, kernel, seq, result, l2)) sweep.rows.push_back(row);
    if (sweep.rows.back().time.ms > 1e3 * lab.time_limit) {
      end = fmt::format("{} takes more than {} s at T = {}", name_of(kernel), lab.time_limit, seq);
    }
  }
  if (sweep.end.empty()) sweep.end = end;
}

Sweep sweep_lengths(const FlashLab& lab, const LabOptions& options, Index l2) {
  constexpr Index kShortest = 64;
  Sweep sweep;
  for (Index seq = kShortest; sweep.end.empty(); seq = next_length(seq)) {
    std::vector<Json> tasks;
    for (const AttentionKernel kernel : kKernels) {
      tasks.push_back(attention_task(lab, kernel, seq));
      tasks.back()["memory_limit"] = lab.memory_limit;
    }
    const std::vector<Json> results = measure_by_turns(options, tasks);
    for (std::size_t i = 0; i < results.size(); ++i) add_length(lab, kKernels[i], seq, results[i], l2, sweep);
  }
  return sweep;
}

const Row& row_with(const std::vector<Row>& rows, AttentionKernel kernel) {
  return *std::find_if(rows.begin(), rows.end(),
                       [&](const Row& r) { return r.kernel == kernel && r.backward; });
}

// The lengths at which both were measured, and whether flash was the faster one.
std::vector<std::pair<Index, bool>> races_of(const std::vector<Row>& rows) {
  std::vector<std::pair<Index, bool>> races;
  for (const Row& naive : rows) {
    if (naive.kernel != AttentionKernel::naive || !naive.backward) continue;
    for (const Row& flash : rows) {
      if (flash.kernel != AttentionKernel::flash || !flash.backward || flash.seq != naive.seq) continue;
      races.emplace_back(naive.seq, flash.time.ms < naive.time.ms);
    }
  }
  return races;
}

std::string finding_of_races(const std::vector<std::pair<Index, bool>>& races) {
  // The first length from which on flash won every race.
  auto first = races.end();
  while (first != races.begin() && std::prev(first)->second) --first;
  if (first == races.end()) return "naive was faster at the longest length that both had";
  const bool lost_all_before =
      std::none_of(races.begin(), first, [](const auto& race) { return race.second; });
  return first != races.begin() && lost_all_before
             ? fmt::format("naive was faster below T = {}", first->first)
             : fmt::format("flash was faster from T = {} on", first->first);
}

std::string finding_of_sweep(const Sweep& sweep) {
  const auto races = races_of(sweep.rows);
  return races.empty() ? "; " + sweep.end : "; " + finding_of_races(races) + "; " + sweep.end;
}

std::string finding_of(const FlashLab& lab, const std::vector<Row>& rows) {
  const Row &naive = row_with(rows, AttentionKernel::naive), &flash = row_with(rows, AttentionKernel::flash);
  const double memory = static_cast<double>(naive.peak) / static_cast<double>(flash.peak);
  const double speed = naive.time.ms / flash.time.ms;
  return fmt::format("flash used {:.1f}x {} memory and was {:.1f}x {} than naive at T = {}",
                     std::max(memory, 1 / memory), memory >= 1 ? "less" : "more", std::max(speed, 1 / speed),
                     speed >= 1 ? "faster" : "slower", lab.seq);
}

template <class Value>
Chart chart_over_lengths(const std::string& title, const std::string& axis, const std::vector<Row>& rows,
                         Value&& value) {
  Chart chart = {.title = title,
                 .note = "forward and backward",
                 .x = {.title = "T, tokens", .logarithmic = true, .switchable = true},
                 .y = {.title = axis, .logarithmic = true, .switchable = true},
                 .series = {},
                 .categories = {}};
  for (const AttentionKernel kernel : kKernels) {
    Series series = {.name = std::string(name_of(kernel)), .points = {}};
    for (const Row& r : rows) {
      if (r.kernel == kernel && r.backward) series.points.emplace_back(static_cast<double>(r.seq), value(r));
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

std::vector<Chart> charts_of(const std::vector<Row>& rows) {
  return {chart_over_lengths("Time", "time, ms", rows, [](const Row& r) { return r.time.ms; }),
          chart_over_lengths("Tracked memory", "peak, MiB", rows,
                             [](const Row& r) { return mebibytes(r.peak); })};
}

std::string describe(const Machine& machine, Dtype dtype) {
  return fmt::format("{}: {:.0f} GFLOP/s of {} FMA, {:.1f} GB/s from memory, L2 {}", machine.processor,
                     machine.gflops, to_string(compute_dtype(dtype)), machine.gbytes_per_s,
                     format_bytes(machine.l2));
}

}  // namespace

Dtype dtype_of_flash_lab(std::string_view text) {
  for (const Dtype dtype : {Dtype::f32, Dtype::f64, Dtype::bf16}) {
    if (to_string(dtype) == text) return dtype;
  }
  fail("lab flash: --dtype is `{}`, not f32, f64 or bf16", text);
}

int run_flash_lab(const FlashLab& lab, const LabOptions& options, const Console& console) {
  std::vector<Json> tasks = {task_of(lab, "machine")};
  for (const AttentionKernel kernel : kKernels) tasks.push_back(attention_task(lab, kernel, lab.seq));
  const std::vector<Json> results = measure_by_turns(options, tasks);
  const Machine machine = machine_of(results[0], lab.dtype);
  std::vector<Row> rows;
  for (std::size_t i = 0; i < kKernels.size(); ++i) {
    check(results[i + 1].at("fits").get<bool>(), "lab flash: {} attention does not fit into memory at T = {}",
          name_of(kKernels[i]), lab.seq);
    for (const Row& row : rows_of(lab, kKernels[i], lab.seq, results[i + 1], machine.l2)) rows.push_back(row);
  }
  const Json accuracy = measure_apart(options, task_of(lab, "accuracy")).at("accuracy");

  LabResult result = {.name = "flash", .configuration = to_json(lab), .rows = Json::array(), .report = {}};
  result.configuration["machine"] = describe(machine, lab.dtype);
  result.configuration["l2_bytes"] = machine.l2;
  result.details = {{"accuracy", accuracy}};
  result.report = {
      .title = "Flash attention against naive attention",
      .finding = finding_of(lab, rows),
      .tables = {speed_table(describe(machine, lab.dtype), rows, machine), accuracy_table(accuracy)},
      .charts = {}};
  if (lab.sweep) {
    const Sweep sweep = sweep_lengths(lab, options, machine.l2);
    result.report.finding += finding_of_sweep(sweep);
    result.report.tables.push_back(speed_table("Over lengths", sweep.rows, machine));
    result.report.charts = charts_of(sweep.rows);
    rows.insert(rows.end(), sweep.rows.begin(), sweep.rows.end());
  }
  for (const Row& row : rows) result.rows.push_back(json_of(row, machine));
  publish(options, result, console);
  return kSuccess;
}

}  // namespace tilegrad::train
