#include "tilegrad/train/labs/checkpoint_lab.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "tilegrad/train/labs/checkpoint_measure.h"
#include "tilegrad/train/labs/child.h"
#include "tilegrad/train/labs/lab_duration.h"
#include "tilegrad/train/labs/publish.h"
#include "tilegrad/train/measure/statistics.h"
#include "tilegrad/train/run/names.h"

namespace tilegrad::train {

namespace {

// One way of checkpointing, and what was predicted and measured of it.
struct Variant {
  std::string name;
  nn::Recompute recompute = nn::Recompute::nothing;  // a part of every block
  Schedule schedule = {};
  ScheduleCost predicted = {};
  StepCosts measured = {};
  Timing step = {};
  double extra_time = 0;  // percent of `none`
  bool same_bits = false;
  Verdict verdict = Verdict::not_distinguishable;  // of its time against that of `none`

  double misprediction() const {  // percent of the peak
    return 100 * (static_cast<double>(predicted.peak) / static_cast<double>(measured.peak) - 1);
  }
};

// "0-2(0-1) 2-4": blocks 0 and 1 together, of which the replay checkpoints block 0, then 2 and 3.
std::string describe(const Schedule& schedule) {
  std::string text;
  for (const Segment& s : schedule) {
    text += fmt::format("{}{}-{}", text.empty() ? "" : " ", s.begin, s.end);
    if (!s.inside.empty()) text += "(" + describe(s.inside) + ")";
  }
  return text.empty() ? "-" : text;
}

CheckpointTask arguments_of(const CheckpointLab& lab, nn::Recompute recompute,
                            const Schedule& schedule = {}) {
  return {.layers = lab.layers,
          .seq = lab.seq,
          .width = lab.width,
          .heads = lab.heads,
          .batch = lab.batch,
          .recompute = recompute,
          .schedule = schedule,
          .seed = lab.seed};
}

ChainCost chain_of(const CheckpointLab& lab, const LabOptions& options, nn::Recompute recompute) {
  return measure_in_child(options, {.measurement = "stages", .arguments = arguments_of(lab, recompute)})
      .get<ChainCost>();
}

Index default_budget(const ChainCost& chain) { return (least_budget(chain) + cost_of(chain, {}).peak) / 2; }

// √L segments.
Index segments_of_root(const CheckpointLab& lab) {
  return static_cast<Index>(std::lround(std::sqrt(static_cast<double>(lab.layers))));
}

std::vector<Variant> make_variants(const CheckpointLab& lab, const LabOptions& options,
                                   const ChainCost& chain, Index budget) {
  std::vector<Variant> variants = {
      {.name = "none"},
      {.name = "block", .schedule = even_segments(lab.layers, lab.layers)},
      {.name = "sqrt", .schedule = even_segments(lab.layers, segments_of_root(lab))},
      {.name = "budget", .schedule = plan_checkpoints(chain, budget)}};
  for (Variant& v : variants) v.predicted = cost_of(chain, v.schedule);
  for (const auto part : {nn::Recompute::attention, nn::Recompute::mlp, nn::Recompute::elementwise}) {
    const ChainCost own = chain_of(lab, options, part);
    variants.push_back(
        {.name = std::string(name_of(part)), .recompute = part, .predicted = cost_of(own, {})});
  }
  return variants;
}

std::size_t index_of(const std::vector<Variant>& variants, std::string_view name) {
  const auto found =
      std::find_if(variants.begin(), variants.end(), [&](const Variant& v) { return v.name == name; });
  return static_cast<std::size_t>(found - variants.begin());
}

// Of the variant that needs least memory.
std::size_t index_of_least(const Rounds& measured) {
  const auto peak = [](const Json& result) { return result.get<StepCosts>().peak; };
  const auto least = std::min_element(measured.results.begin(), measured.results.end(),
                                      [&](const Json& a, const Json& b) { return peak(a) < peak(b); });
  return static_cast<std::size_t>(least - measured.results.begin());
}

// Returns how many rounds that took.
int measure_variants(const CheckpointLab& lab, const LabOptions& options, std::vector<Variant>& variants,
                     const Console& console) {
  std::vector<Task> tasks;
  for (const Variant& v : variants) {
    tasks.push_back({.measurement = "schedule",
                     .variant = v.name,
                     .arguments = arguments_of(lab, v.recompute, v.schedule),
                     .repeats = lab.repeats});
  }
  const auto times = [](const Rounds& measured, std::size_t i) {
    return timing_of(measured.results[i].get<StepCosts>().step_ms, measured.count);
  };
  // The finding says what two of them cost: the one that needs least memory, and the planned one.
  const auto undecided = [&](const Rounds& measured) {
    for (const std::size_t i : {index_of_least(measured), index_of(variants, "budget")}) {
      if (i != 0 && verdict_on(times(measured, i), times(measured, 0)) == Verdict::not_distinguishable)
        return true;
    }
    return false;
  };
  const auto say_how_long = [&](const std::vector<double>& seconds) {
    announce(console, describe(expected_of_rounds(options, total(seconds))));
  };
  const Rounds measured = measure_until_decided(options, tasks, console, undecided, say_how_long);
  const Variant& none = variants[0];
  for (std::size_t i = 0; i < variants.size(); ++i) {
    Variant& v = variants[i];
    measured.results[i].get_to(v.measured);
    v.step = times(measured, i);
    v.extra_time = 100 * (v.step.ms / none.step.ms - 1);
    v.same_bits = v.measured.loss == none.measured.loss && v.measured.gradients == none.measured.gradients;
    v.verdict = verdict_on(v.step, none.step);
  }
  return measured.count;
}

std::vector<Column<Variant>> columns() {
  const Show one = number("{:.1f}");
  return {
      {"variant", "variant", &Variant::name},
      {"segments", "segments", [](const Variant& v) { return describe(v.schedule); }},
      {"predicted peak", "predicted_peak_bytes", [](const Variant& v) { return v.predicted.peak; }, bytes},
      {"peak tracked", "peak_bytes", [](const Variant& v) { return v.measured.peak; }, bytes},
      {"off by, %", "", &Variant::misprediction, number("{:+.2f}")},
      {"peak RSS", "peak_rss_bytes", [](const Variant& v) { return v.measured.peak_rss; }, bytes},
      {"ms per step", "step_ms", [](const Variant& v) { return v.step.ms; }, one},
      {"spread, ms", "step_spread_ms", [](const Variant& v) { return v.step.spread_ms; }, one},
      {"extra time, %", "extra_time_percent", &Variant::extra_time, number("{:+.1f}")},
      {"ops recomputed", "recomputed_ops", [](const Variant& v) { return v.predicted.ops; }},
      {"page faults", "page_faults", [](const Variant& v) { return v.measured.page_faults; },
       number("{:.0f}")},
      {"", "same_bits", &Variant::same_bits},
      {"same bits", "", [](const Variant& v) { return v.same_bits ? "yes" : "NO"; }}};
}

// "+12 % time", if the repetitions support it.
std::string time_of(const Variant& v) {
  return v.verdict == Verdict::not_distinguishable ? "time not distinguishable"
                                                   : fmt::format("{:+.0f} % time", v.extra_time);
}

const Variant& named(const std::vector<Variant>& variants, std::string_view name) {
  return variants[index_of(variants, name)];
}

std::string finding_of(const std::vector<Variant>& variants, Index budget) {
  const auto by_peak = [](const Variant& a, const Variant& b) { return a.measured.peak < b.measured.peak; };
  const Variant& least = *std::min_element(variants.begin(), variants.end(), by_peak);
  const Variant& planned = named(variants, "budget");
  double worst = 0;
  for (const Variant& v : variants) worst = std::max(worst, std::abs(v.misprediction()));
  const auto differing =
      std::count_if(variants.begin(), variants.end(), [](const Variant& v) { return !v.same_bits; });
  return fmt::format(
      "{} needs least memory, {} instead of {} ({}); under a budget of {} the plan needs {} ({}, {} ops "
      "recomputed); peaks were predicted within {:.1f} %; {}",
      least.name, format_bytes(least.measured.peak), format_bytes(variants[0].measured.peak), time_of(least),
      format_bytes(budget), format_bytes(planned.measured.peak), time_of(planned), planned.predicted.ops,
      worst,
      differing == 0 ? "loss and gradients have the same bits everywhere"
                     : fmt::format("loss or gradients of {} variants DIFFER", differing));
}

// What a budget costs, by prediction, and where the measured variants stand.
Chart trade_off(const ChainCost& chain, const std::vector<Variant>& variants) {
  const double whole_step_ns = variants[0].step.ms * 1e6;
  Chart chart = {.title = "Time against memory",
                 .note =
                     "The line is the predicted best schedule for each budget; there is none to the left "
                     "of it.",
                 .x = {.title = "peak tracked, MiB"},
                 .y = {.title = "extra time, %"}};
  Series best = {.name = "best schedules, predicted"};
  for (const ScheduleCost& cost : best_schedules(chain)) {
    best.points.emplace_back(mebibytes(cost.peak),
                             100 * static_cast<double>(cost.nanoseconds) / whole_step_ns);
  }
  chart.series.push_back(best);
  for (const Variant& v : variants) {
    chart.series.push_back({.name = v.name, .points = {{mebibytes(v.measured.peak), v.extra_time}}});
  }
  return chart;
}

Chart peaks(const std::vector<Variant>& variants) {
  Chart chart = {.title = "Peak of tracked memory",
                 .note = "Predicted from each block measured alone, and measured in a whole step.",
                 .kind = Chart::Kind::bars,
                 .x = {.title = "variant"},
                 .y = {.title = "peak tracked, MiB"},
                 .series = {{.name = "predicted"}, {.name = "measured"}}};
  for (const Variant& v : variants) {
    const auto x = static_cast<double>(chart.categories.size());
    chart.categories.push_back(v.name);
    chart.series[0].points.emplace_back(x, mebibytes(v.predicted.peak));
    chart.series[1].points.emplace_back(x, mebibytes(v.measured.peak));
  }
  return chart;
}

std::vector<Why> whys_of(const CheckpointLab& lab, const ChainCost& chain,
                         const std::vector<Variant>& variants) {
  std::vector<Why> whys;
  const auto add = [&](std::optional<Why> why) {
    if (why) whys.push_back(*std::move(why));
  };
  const Variant &root = named(variants, "sqrt"), &none = variants[0];
  add(why_segments_need_more(chain, segments_of_root(lab), root.measured.peak,
                             named(variants, "block").measured.peak));
  for (const Variant& v : variants) {
    // The prediction is of what a schedule recomputes, and knows nothing of the parts of a block.
    std::optional<double> predicted;
    if (v.recompute == nn::Recompute::nothing)
      predicted = static_cast<double>(v.predicted.nanoseconds) / (1e6 * none.step.ms);
    add(why_no_slower({.name = v.name,
                       .ops = v.predicted.ops,
                       .predicted = predicted,
                       .measured = v.extra_time / 100,
                       .spread = std::max(v.step.spread_ms, none.step.spread_ms) / none.step.ms,
                       .faults = v.measured.page_faults,
                       .faults_of_none = none.measured.page_faults,
                       .verdict = v.verdict}));
  }
  return whys;
}

OrderedJson configuration_of(const CheckpointLab& lab, Index budget) {
  return {{"layers", lab.layers}, {"seq", lab.seq},         {"width", lab.width}, {"heads", lab.heads},
          {"batch", lab.batch},   {"repeats", lab.repeats}, {"seed", lab.seed},   {"budget_bytes", budget}};
}

}  // namespace

int run_checkpoint_lab(const CheckpointLab& lab, const LabOptions& options, const Console& console) {
  arguments_of(lab, nn::Recompute::nothing).model().validate();
  announce(console, fmt::format("training steps of {} blocks under each way of checkpointing: {} of {}, "
                                "interleaved",
                                lab.layers, planned_rounds(options), repetitions(lab.repeats)));
  const ChainCost chain = chain_of(lab, options, nn::Recompute::nothing);
  const Index budget = lab.budget > 0 ? lab.budget : default_budget(chain);
  std::vector<Variant> variants = make_variants(lab, options, chain, budget);
  const int rounds = measure_variants(lab, options, variants, console);

  LabResult result = {.name = "checkpoint",
                      .configuration = configuration_of(lab, budget),
                      .rows = json_of(columns(), variants),
                      .details = {{"rounds", rounds}},
                      .whys = whys_of(lab, chain, variants)};
  result.report = {.title = "Activation checkpointing",
                   .finding = finding_of(variants, budget),
                   .tables = {table_of("Checkpointing", columns(), variants)},
                   .charts = {trade_off(chain, variants), peaks(variants)}};
  publish(options, result, console);
  const bool same =
      std::all_of(variants.begin(), variants.end(), [](const Variant& v) { return v.same_bits; });
  return same ? kSuccess : kFailure;
}

}  // namespace tilegrad::train
