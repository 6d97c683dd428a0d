#include "tilegrad/train/labs/checkpoint.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "tilegrad/autograd/tape.h"
#include "tilegrad/base/format.h"
#include "tilegrad/train/labs/probes.h"
#include "tilegrad/train/run/names.h"
#include "tilegrad/train/run/stage_costs.h"

namespace tilegrad::train {

namespace {

// One way of checkpointing, and what was predicted and measured of it.
struct Variant {
  std::string name;
  std::string policy;  // empty: none
  Schedule schedule = {};
  ScheduleCost predicted = {};
  Index peak = 0;      // tracked, bytes
  Index peak_rss = 0;  // bytes
  Timing step = {};
  bool same_bits = false;
};

constexpr std::array kStageFields = {std::pair{"output", &StageCost::output},
                                     std::pair{"saved", &StageCost::saved},
                                     std::pair{"forward_peak", &StageCost::forward_peak},
                                     std::pair{"recorded_peak", &StageCost::recorded_peak},
                                     std::pair{"backward_peak", &StageCost::backward_peak},
                                     std::pair{"replay_peak", &StageCost::replay_peak},
                                     std::pair{"gradients", &StageCost::gradients},
                                     std::pair{"nanoseconds", &StageCost::nanoseconds},
                                     std::pair{"ops", &StageCost::ops},
                                     std::pair{"recomputed", &StageCost::recomputed}};

Json to_json(const StageCost& cost) {
  Json json;
  for (const auto& [name, field] : kStageFields) json[name] = cost.*field;
  return json;
}

StageCost stage_of(const Json& json) {
  StageCost cost;
  for (const auto& [name, field] : kStageFields) cost.*field = json.at(name).get<Index>();
  return cost;
}

ChainCost chain_of(const Json& json) {
  ChainCost chain = {.resident = json.at("resident").get<Index>(),
                     .prologue = stage_of(json.at("prologue")),
                     .epilogue = stage_of(json.at("epilogue"))};
  for (const Json& block : json.at("blocks")) chain.blocks.push_back(stage_of(block));
  return chain;
}

// A segment is [begin, end, [segments inside]].
Json to_json(const Schedule& schedule) {
  Json json = Json::array();
  for (const Segment& s : schedule) json.push_back({s.begin, s.end, to_json(s.inside)});
  return json;
}

Schedule schedule_of(const Json& json) {
  Schedule schedule;
  for (const Json& s : json) {
    schedule.push_back({s.at(0).get<Index>(), s.at(1).get<Index>(), schedule_of(s.at(2))});
  }
  return schedule;
}

// "0-2(0-1) 2-4": blocks 0 and 1 together, of which the replay checkpoints block 0, then 2 and 3.
std::string describe(const Schedule& schedule) {
  std::string text;
  for (const Segment& s : schedule) {
    text += fmt::format("{}{}-{}", text.empty() ? "" : " ", s.begin, s.end);
    if (!s.inside.empty()) text += "(" + describe(s.inside) + ")";
  }
  return text.empty() ? "-" : text;
}

Json to_json(const CheckpointLab& lab) {
  return {{"layers", lab.layers}, {"seq", lab.seq},         {"d", lab.d},      {"heads", lab.heads},
          {"batch", lab.batch},   {"repeats", lab.repeats}, {"seed", lab.seed}};
}

nn::TransformerConfig model_of(const Json& task) {
  nn::TransformerConfig config = {.vocabulary = kVocabulary,
                                  .context = task.at("seq").get<Index>(),
                                  .layers = task.at("layers").get<Index>(),
                                  .heads = task.at("heads").get<Index>(),
                                  .kv_heads = task.at("heads").get<Index>(),
                                  .width = task.at("d").get<Index>()};
  const auto policy = task.at("policy").get<std::string>();
  if (!policy.empty()) config.recompute = value_of<nn::Recompute>("checkpoint", policy);
  return config;
}

// What both measurements work on. Members are made in this order.
struct Bench {
  explicit Bench(const Json& task)
      : key{task.at("seed").get<std::uint64_t>()},
        model(model_of(task), key.fold(0)),
        tokens(tokens_of(task, key.fold(1))),
        targets(tokens_of(task, key.fold(2))) {}

  static Tensor tokens_of(const Json& task, RandomKey part) {
    return random_tokens(task.at("batch").get<Index>(), task.at("seq").get<Index>(), part);
  }

  nn::Mode mode() const { return {.training = true, .key = key.fold(3)}; }

  // Loss and gradients of one step; the gradients are left in the model.
  double step() {
    nn::zero_grad(nn::parameters(model));
    Tape tape;
    const Var loss = cross_entropy(model(tokens, mode()), targets);
    tape.backward(loss);
    return loss.value().item();
  }

  RandomKey key;
  nn::Transformer model;
  Tensor tokens, targets;
};

// FNV-1a over the bits of all gradients.
std::uint64_t hash_of_gradients(nn::Transformer& model) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const nn::NamedParameter& p : nn::parameters(model)) {
    for (const float g : p.parameter->grad().view<float>()) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, &g, sizeof bits);
      hash = (hash ^ bits) * 0x100000001b3;
    }
  }
  return hash;
}

}  // namespace

Json probe_stages(const Json& task) {
  Bench bench(task);
  const ChainCost chain = measure_stages(bench.model, bench.tokens, bench.targets, bench.mode());
  Json blocks = Json::array();
  for (const StageCost& block : chain.blocks) blocks.push_back(to_json(block));
  return {{"resident", chain.resident},
          {"prologue", to_json(chain.prologue)},
          {"blocks", blocks},
          {"epilogue", to_json(chain.epilogue)}};
}

Json probe_schedule(const Json& task) {
  Bench bench(task);
  bench.model.schedule = schedule_of(task.at("schedule"));
  bench.step();  // makes the scratch memory that threads keep
  nn::zero_grad(nn::parameters(bench.model));
  memory::reset_peak();
  const double loss = bench.step();
  const Index peak = memory::usage().peak;
  const std::uint64_t hash = hash_of_gradients(bench.model);
  const auto ms = time_calls(task, "step", [&] { bench.step(); });
  return {{"loss", loss}, {"gradients", hash}, {"peak", peak}, {"step_ms", ms}};
}

namespace {

Json task_of(const CheckpointLab& lab, const std::string& probe, const std::string& policy) {
  Json task = to_json(lab);
  task["probe"] = probe;
  task["policy"] = policy;
  return task;
}

ChainCost measure_chain(const CheckpointLab& lab, const LabOptions& options, const std::string& policy) {
  return chain_of(measure_apart(options, task_of(lab, "stages", policy)));
}

Index default_budget(const ChainCost& chain) { return (least_budget(chain) + cost_of(chain, {}).peak) / 2; }

std::vector<Variant> make_variants(const CheckpointLab& lab, const LabOptions& options,
                                   const ChainCost& chain, Index budget) {
  const auto root = static_cast<Index>(std::lround(std::sqrt(static_cast<double>(lab.layers))));
  std::vector<Variant> variants = {
      {.name = "none", .policy = ""},
      {.name = "block", .policy = "", .schedule = even_segments(lab.layers, lab.layers)},
      {.name = "sqrt", .policy = "", .schedule = even_segments(lab.layers, root)},
      {.name = "budget", .policy = "", .schedule = plan_checkpoints(chain, budget)}};
  for (Variant& v : variants) v.predicted = cost_of(chain, v.schedule);
  for (const std::string& policy : all_names<nn::Recompute>()) {
    const ChainCost own = measure_chain(lab, options, policy);
    variants.push_back({.name = policy, .policy = policy, .predicted = cost_of(own, {})});
  }
  return variants;
}

void measure_variants(const CheckpointLab& lab, const LabOptions& options, std::vector<Variant>& variants) {
  std::vector<Json> tasks;
  for (const Variant& v : variants) {
    tasks.push_back(task_of(lab, "schedule", v.policy));
    tasks.back()["schedule"] = to_json(v.schedule);
    tasks.back()["label"] = v.name;
  }
  const std::vector<Json> results = measure_by_turns(options, tasks);
  for (std::size_t i = 0; i < variants.size(); ++i) {
    Variant& v = variants[i];
    v.peak = results[i].at("peak").get<Index>();
    v.peak_rss = results[i].at("peak_rss").get<Index>();
    v.step = timing_of(results[i].at("step_ms"));
    v.same_bits = results[i].at("loss") == results[0].at("loss") &&
                  results[i].at("gradients") == results[0].at("gradients");
  }
}

double percent(double part, double whole) { return 100 * (part / whole - 1); }

double extra_time(const std::vector<Variant>& variants, const Variant& v) {
  return percent(v.step.ms, variants[0].step.ms);
}

double misprediction(const Variant& v) {
  return percent(static_cast<double>(v.predicted.peak), static_cast<double>(v.peak));
}

Json row_of(const std::vector<Variant>& variants, const Variant& v) {
  return {{"variant", v.name},
          {"segments", describe(v.schedule)},
          {"predicted_peak_bytes", v.predicted.peak},
          {"peak_bytes", v.peak},
          {"peak_rss_bytes", v.peak_rss},
          {"step_ms", v.step.ms},
          {"step_spread_ms", v.step.spread_ms},
          {"extra_time_percent", extra_time(variants, v)},
          {"recomputed_ops", v.predicted.ops},
          {"same_bits", v.same_bits}};
}

Table table_of(const std::vector<Variant>& variants) {
  Table table = {.title = "Checkpointing",
                 .columns = {"variant", "segments", "predicted peak", "peak tracked", "off by, %", "peak RSS",
                             "ms a step", "spread, ms", "extra time, %", "ops recomputed", "same bits"},
                 .rows = {}};
  for (const Variant& v : variants) {
    table.rows.push_back({v.name, describe(v.schedule), format_bytes(v.predicted.peak), format_bytes(v.peak),
                          fmt::format("{:+.2f}", misprediction(v)), format_bytes(v.peak_rss),
                          fmt::format("{:.1f}", v.step.ms), fmt::format("{:.1f}", v.step.spread_ms),
                          fmt::format("{:+.1f}", extra_time(variants, v)), fmt::format("{}", v.predicted.ops),
                          v.same_bits ? "yes" : "NO"});
  }
  return table;
}

std::string finding_of(const std::vector<Variant>& variants, Index budget) {
  const auto by_peak = [](const Variant& a, const Variant& b) { return a.peak < b.peak; };
  const Variant& least = *std::min_element(variants.begin(), variants.end(), by_peak);
  const auto planned =
      std::find_if(variants.begin(), variants.end(), [](const Variant& v) { return v.name == "budget"; });
  double worst = 0;
  for (const Variant& v : variants) worst = std::max(worst, std::abs(misprediction(v)));
  const auto differing =
      std::count_if(variants.begin(), variants.end(), [](const Variant& v) { return !v.same_bits; });
  return fmt::format(
      "{} needs least memory, {} instead of {} ({:+.0f} % time); under a budget of {} the plan needs {} "
      "({:+.0f} % time, {} ops recomputed); peaks were predicted within {:.1f} %; {}",
      least.name, format_bytes(least.peak), format_bytes(variants[0].peak), extra_time(variants, least),
      format_bytes(budget), format_bytes(planned->peak), extra_time(variants, *planned),
      planned->predicted.ops, worst,
      differing == 0 ? "loss and gradients have the same bits everywhere"
                     : fmt::format("loss or gradients of {} variants DIFFER", differing));
}

// What a budget costs, by prediction, and where the measured variants stand.
Chart trade_off(const ChainCost& chain, const std::vector<Variant>& variants) {
  const double whole_step_ns = variants[0].step.ms * 1e6;
  Chart chart = {.title = "Time against memory",
                 .note =
                     "The line is the best schedule for each budget, as predicted; below its left end there "
                     "is none.",
                 .x = {.title = "peak tracked, MiB"},
                 .y = {.title = "extra time, %"},
                 .series = {},
                 .categories = {}};
  Series best = {.name = "best schedules, predicted", .points = {}};
  for (const ScheduleCost& cost : best_schedules(chain)) {
    best.points.emplace_back(mebibytes(cost.peak),
                             100 * static_cast<double>(cost.nanoseconds) / whole_step_ns);
  }
  chart.series.push_back(best);
  for (const Variant& v : variants) {
    chart.series.push_back({.name = v.name, .points = {{mebibytes(v.peak), extra_time(variants, v)}}});
  }
  return chart;
}

Chart peaks(const std::vector<Variant>& variants) {
  Chart chart = {.title = "Peak of tracked memory",
                 .note = "Predicted from each block measured alone, and measured in a whole step.",
                 .kind = Chart::Kind::bars,
                 .x = {.title = "variant"},
                 .y = {.title = "peak tracked, MiB"},
                 .series = {},
                 .categories = {}};
  chart.series = {{.name = "predicted", .points = {}}, {.name = "measured", .points = {}}};
  for (std::size_t i = 0; i < variants.size(); ++i) {
    chart.categories.push_back(variants[i].name);
    chart.series[0].points.emplace_back(static_cast<double>(i), mebibytes(variants[i].predicted.peak));
    chart.series[1].points.emplace_back(static_cast<double>(i), mebibytes(variants[i].peak));
  }
  return chart;
}

}  // namespace

int run_checkpoint_lab(const CheckpointLab& lab, const LabOptions& options, const Console& console) {
  Json configuration = task_of(lab, "stages", "");
  model_of(configuration).validate();
  const ChainCost chain = measure_chain(lab, options, "");
  const Index budget = lab.budget > 0 ? lab.budget : default_budget(chain);
  std::vector<Variant> variants = make_variants(lab, options, chain, budget);
  measure_variants(lab, options, variants);

  configuration = to_json(lab);
  configuration["budget_bytes"] = budget;
  LabResult result = {
      .name = "checkpoint", .configuration = configuration, .rows = Json::array(), .report = {}};
  for (const Variant& v : variants) result.rows.push_back(row_of(variants, v));
  result.report = {.title = "Activation checkpointing",
                   .finding = finding_of(variants, budget),
                   .tables = {table_of(variants)},
                   .charts = {trade_off(chain, variants), peaks(variants)}};
  publish(options, result, console);
  const bool same =
      std::all_of(variants.begin(), variants.end(), [](const Variant& v) { return v.same_bits; });
  return same ? kSuccess : kFailure;
}

}  // namespace tilegrad::train
