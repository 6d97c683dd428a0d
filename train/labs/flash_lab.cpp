#include "tilegrad/train/labs/flash_lab.h"

#include <algorithm>
#include <array>
#include <functional>

#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/labs/flash_formats.h"
#include "tilegrad/train/labs/flash_measure.h"
#include "tilegrad/train/labs/flash_pictures.h"
#include "tilegrad/train/labs/flash_rows.h"
#include "tilegrad/train/labs/flash_tiles.h"
#include "tilegrad/train/labs/lab_duration.h"
#include "tilegrad/train/labs/publish.h"
#include "tilegrad/train/labs/speed_finding.h"
#include "tilegrad/train/measure/statistics.h"
#include "tilegrad/train/run/mine.h"
#include "tilegrad/train/run/names.h"

namespace tilegrad::train {

namespace {

constexpr std::array kKernels = {AttentionKernel::naive, AttentionKernel::flash};

FlashTask task_of(const FlashLab& lab, AttentionKernel kernel, Index seq) {
  return {.batch = lab.batch,
          .heads = lab.heads,
          .seq = seq,
          .head_size = lab.head_size,
          .causal = lab.causal,
          .dtype = lab.dtype,
          .kernel = kernel,
          .seed = lab.seed,
          .tile_q = lab.tile_q,
          .tile_k = lab.tile_k,
          .kv_seq = lab.kv_seq,
          .window_left = lab.window.left.value_or(-1),
          .window_right = lab.window.right.value_or(-1),
          .input_std = lab.input_std};
}

// What is measured at a length: both kernels and, if there is one, a learner's code.
std::vector<FlashTask> tasks_of(const FlashLab& lab, Index seq, bool with_mine) {
  std::vector<FlashTask> tasks;
  for (const AttentionKernel kernel : kKernels) tasks.push_back(task_of(lab, kernel, seq));
  if (with_mine) {
    tasks.push_back(tasks.back());
    tasks.back().mine = lab.mine;
  }
  return tasks;
}

Task attention_task(const FlashLab& lab, const FlashTask& task) {
  return {.measurement = "attention",
          .variant = fmt::format("{}-{}", task.mine.empty() ? name_of(task.kernel) : kMine, task.seq),
          .arguments = task,
          .repeats = lab.repeats};
}

// 64, 96, 128, 192, 256 ...: each length about 1.4 times the one before.
Index next_length(Index seq) { return (seq & (seq - 1)) == 0 ? seq / 2 * 3 : seq / 3 * 4; }

// Whether naive and flash, which begin at `first`, cannot be told apart yet. Where one does not fit, there is nothing to
// decide.
std::function<bool(const Rounds&)> undecided_from(std::size_t first) {
  return [first](const Rounds& measured) {
    const auto naive = measured.results[first].get<AttentionCosts>(),
               flash = measured.results[first + 1].get<AttentionCosts>();
    const auto time = [&](const AttentionCosts& costs) { return timing_of(costs.step_ms, measured.count); };
    return naive.fits && flash.fits && verdict_on(time(flash), time(naive)) == Verdict::not_distinguishable;
  };
}

struct Sweep {
  std::vector<FlashRow> rows = {};
  std::string end = {};          // why it ended
  std::string end_of_mine = {};  // and from where on a learner's code is missing
};

// Naive attention comes first and ends the sweep in nearly all cases; the first reason stays. A learner's code, which
// is slower, is left out from there on, and ends nothing.
void add_length(const FlashLab& lab, const FlashTask& task, const AttentionCosts& costs, Index l2, int rounds,
                Sweep& sweep) {
  std::string end;
  const std::string_view name = task.mine.empty() ? name_of(task.kernel) : kMine;
  if (!costs.fits) {
    end = fmt::format("{} needs more than {} at T = {}", name, format_bytes(lab.memory_limit), task.seq);
  } else {
    for (const FlashRow& row : rows_of(task, costs, l2, rounds)) sweep.rows.push_back(row);
    if (sweep.rows.back().time.ms > 1e3 * lab.time_limit) {
      end = fmt::format("{} takes more than {} s at T = {}", name, lab.time_limit, task.seq);
    }
  }
  std::string& reason = task.mine.empty() ? sweep.end : sweep.end_of_mine;
  if (reason.empty()) reason = end;
}

Sweep sweep_lengths(const FlashLab& lab, const LabOptions& options, Index l2, const Console& console) {
  constexpr Index kShortest = 64;
  Sweep sweep;
  for (Index seq = kShortest; sweep.end.empty(); seq = next_length(seq)) {
    std::vector<FlashTask> arguments = tasks_of(lab, seq, !lab.mine.empty() && sweep.end_of_mine.empty());
    std::vector<Task> tasks;
    for (FlashTask& task : arguments) {
      task.memory_limit = lab.memory_limit;
      tasks.push_back(attention_task(lab, task));
    }
    const Rounds measured = measure_until_decided(options, tasks, console, undecided_from(0));
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      add_length(lab, arguments[i], measured.results[i].get<AttentionCosts>(), l2, measured.count, sweep);
    }
  }
  return sweep;
}

const FlashRow* find_row(const std::vector<FlashRow>& rows, AttentionKernel kernel, Index seq) {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const FlashRow& r) {
    return r.kernel == kernel && !r.mine && r.backward && r.seq == seq;
  });
  return found == rows.end() ? nullptr : &*found;
}

// From which length on flash is faster, among those at which both were measured.
std::string finding_of_lengths(const std::vector<FlashRow>& rows) {
  std::vector<Index> lengths;
  std::vector<bool> won;
  for (const FlashRow& naive : rows) {
    if (naive.kernel != AttentionKernel::naive || !naive.backward) continue;
    const FlashRow* const flash = find_row(rows, AttentionKernel::flash, naive.seq);
    if (flash == nullptr) continue;
    lengths.push_back(naive.seq);
    won.push_back(verdict_on(flash->time, naive.time) == Verdict::less);
  }
  if (lengths.empty()) return "";
  const auto first = first_lasting_win(won);
  return first ? fmt::format("; flash is faster from T = {} on", lengths[*first])
               : fmt::format("; flash is not distinguishably faster at T = {}", lengths.back());
}

std::string finding_of(const FlashLab& lab, const std::vector<FlashRow>& rows) {
  const FlashRow &naive = *find_row(rows, AttentionKernel::naive, lab.seq),
                 &flash = *find_row(rows, AttentionKernel::flash, lab.seq);
  const double memory = static_cast<double>(naive.peak) / static_cast<double>(flash.peak);
  const std::string keys = lab.kv_seq > 0 ? fmt::format(" and {} keys", lab.kv_seq) : "";
  return fmt::format("at T = {}{} flash uses {:.1f}x {} memory than naive; {}", lab.seq, keys,
                     std::max(memory, 1 / memory), memory >= 1 ? "less" : "more",
                     speed_finding("flash", "naive", flash.time.round_ms, naive.time.round_ms,
                                   verdict_on(flash.time, naive.time)));
}

template <class Value>
Chart chart_over_lengths(const std::string& title, const std::string& axis, const std::vector<FlashRow>& rows,
                         Value&& value) {
  Chart chart = {.title = title,
                 .note = "forward and backward",
                 .x = {.title = "T, tokens", .logarithmic = true, .switchable = true},
                 .y = {.title = axis, .logarithmic = true, .switchable = true}};
  for (const std::string_view name :
       {name_of(AttentionKernel::naive), name_of(AttentionKernel::flash), kMine}) {
    Series series = {.name = std::string(name)};
    for (const FlashRow& r : rows) {
      if (r.name() == name && r.backward) series.points.emplace_back(static_cast<double>(r.seq), value(r));
    }
    if (!series.points.empty()) chart.series.push_back(std::move(series));
  }
  return chart;
}

std::vector<Chart> charts_of(const std::vector<FlashRow>& rows) {
  return {chart_over_lengths("Time", "time, ms", rows, [](const FlashRow& r) { return r.time.ms; }),
          chart_over_lengths("Tracked memory", "peak, MiB", rows,
                             [](const FlashRow& r) { return mebibytes(r.peak); })};
}

// Adds the maps and the finding of --tile-sweep.
void sweep_tiles(const FlashLab& lab, const LabOptions& options, const Console& console, LabResult& result) {
  FlashTask task = task_of(lab, AttentionKernel::flash, lab.seq);
  const auto times = measure_tiles(task, lab.repeats, options, console);
  result.details["tiles"] = tiles_json(times);
  result.report.finding += "; " + tile_finding(task, times, lab.repeats, options, console);
  for (Grid& map : tile_maps(times)) result.report.grids.push_back(std::move(map));
}

// Adds the table, the picture and the finding of several formats.
void compare_formats(const FlashLab& lab, const LabOptions& options, const Console& console,
                     LabResult& result) {
  const auto rows = measure_formats(task_of(lab, AttentionKernel::flash, lab.seq), lab.formats, lab.repeats,
                                    options, console);
  result.details["formats"] = json_of(format_columns(), rows);
  result.report.finding += "; " + format_finding(rows);
  result.report.tables.push_back(
      table_of("Number formats: flash on the same numbers, stored in each", format_columns(), rows));
  result.report.charts.push_back(format_chart(rows));
}

// How many tasks of flash at the same length each round of formats and of tiles has, the best of which stand twice.
std::size_t later_tasks(const FlashLab& lab) {
  const FlashTask flash = task_of(lab, AttentionKernel::flash, lab.seq);
  return lab.formats.size() + (lab.tile_sweep ? tile_tasks(flash).size() + 2 : 0);
}

OrderedJson configuration_of(const FlashLab& lab, const Machine& machine) {
  const auto given = [](Index size) {
    return size > 0 ? OrderedJson(size) : OrderedJson();
  };  // none: flash chooses
  return {{"seq", lab.seq},
          {"head_size", lab.head_size},
          {"heads", lab.heads},
          {"batch", lab.batch},
          {"kv_seq", lab.kv_seq > 0 ? lab.kv_seq : lab.seq},
          {"causal", lab.causal},
          {"window_left", or_null(lab.window.left)},
          {"window_right", or_null(lab.window.right)},
          {"dtype", to_string(lab.dtype)},
          {"input_std", lab.input_std},
          {"tile_q", given(lab.tile_q)},
          {"tile_k", given(lab.tile_k)},
          {"repeats", lab.repeats},
          {"seed", lab.seed},
          {"machine", describe(machine, lab.dtype)},
          {"l2_bytes", machine.l2}};
}

}  // namespace

int run_flash_lab(const FlashLab& lab, const LabOptions& options, const Console& console) {
  check(lab.mine.empty() || lab.causal, "lab flash: a learner's attention is causal; --mine needs --causal");
  check(lab.kv_seq == 0 || !lab.sweep, "lab flash: a sweep has as many keys as queries");
  announce(console,
           fmt::format("naive and flash attention, {} of {} each, interleaved{}{}{}", planned_rounds(options),
                       repetitions(lab.repeats), lab.formats.empty() ? "" : ", then flash in each format",
                       lab.tile_sweep ? ", then tiles of many sizes" : "",
                       lab.sweep ? ", then lengths from 64 on until one meets a limit" : ""));
  if (!lab.mine.empty()) mine_attention(lab.mine);  // complains before anything is measured
  const std::vector<FlashTask> measured = tasks_of(lab, lab.seq, !lab.mine.empty());
  const FlashTask& flash = measured[1];
  std::vector<Task> tasks = {{.measurement = "machine", .arguments = flash}};
  for (const FlashTask& task : measured) tasks.push_back(attention_task(lab, task));
  const auto say_how_long = [&](const std::vector<double>& seconds) {
    // What comes later runs flash again, which the third task did.
    const double later =
        static_cast<double>(options.rounds) * static_cast<double>(later_tasks(lab)) * seconds[2];
    announce(console, describe(expected_of_rounds(options, total(seconds)) + later) +
                          (lab.sweep ? ", and the lengths" : ""));
  };
  const Rounds timed = measure_until_decided(options, tasks, console, undecided_from(1), say_how_long);
  const Machine machine = machine_of(timed.results[0].get<MachineSpeeds>(), lab.dtype);
  std::vector<FlashRow> rows;
  for (std::size_t i = 0; i < measured.size(); ++i) {
    const FlashTask& task = measured[i];
    const auto costs = timed.results[i + 1].get<AttentionCosts>();
    check(costs.fits, "lab flash: {} attention does not fit into memory at T = {}", name_of(task.kernel),
          lab.seq);
    for (const FlashRow& row : rows_of(task, costs, machine.l2, timed.count)) rows.push_back(row);
  }
  const auto accuracy =
      measure_in_child(options, {.measurement = "accuracy", .arguments = flash}).get<Accuracy>();

  const std::vector<Column<FlashRow>> columns = columns_of(machine);
  LabResult result = {
      .name = "flash",
      .configuration = configuration_of(lab, machine),
      .details = {{"rounds", timed.count}, {"accuracy", json_of(accuracy_columns(), accuracy.tensors)}}};
  result.report = {.title = "Flash attention against naive attention",
                   .finding = finding_of(lab, rows),
                   .tables = {table_of(describe(machine, lab.dtype), columns, rows),
                              table_of("Differences, and errors against naive attention in f64",
                                       accuracy_columns(), accuracy.tensors)}};
  result.report.charts = {roofline_of(machine, rows)};
  result.report.grids = walk_pictures(flash, kernels::threads());
  if (!lab.formats.empty()) compare_formats(lab, options, console, result);
  if (lab.tile_sweep) sweep_tiles(lab, options, console, result);
  for (const Phase phase : {Phase::forward, Phase::backward}) {
    if (auto why = why_as_many_bytes(flash.problem(), phase, machine.l2))
      result.whys.push_back(*std::move(why));
  }
  if (lab.sweep) {
    const Sweep sweep = sweep_lengths(lab, options, machine.l2, console);
    result.report.finding += finding_of_lengths(sweep.rows) + "; " + sweep.end;
    result.report.tables.push_back(table_of("Over lengths", columns, sweep.rows));
    if (!sweep.end_of_mine.empty())
      result.report.finding += "; " + sweep.end_of_mine + " and is left out from there on";
    for (Chart& chart : charts_of(sweep.rows)) result.report.charts.push_back(std::move(chart));
    rows.insert(rows.end(), sweep.rows.begin(), sweep.rows.end());
  }
  result.rows = json_of(columns, rows);
  publish(options, result, console);
  return kSuccess;
}

}  // namespace tilegrad::train
