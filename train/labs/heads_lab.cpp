#include "tilegrad/train/labs/heads_lab.h"

#include <algorithm>
#include <functional>

#include "tilegrad/train/labs/heads_conversions.h"
#include "tilegrad/train/labs/heads_measure.h"
#include "tilegrad/train/labs/lab_duration.h"
#include "tilegrad/train/labs/publish.h"
#include "tilegrad/train/labs/speed_finding.h"
#include "tilegrad/train/measure/spread.h"
#include "tilegrad/train/report/numbers.h"

namespace tilegrad::train {

namespace {

// What was measured of one kind.
struct Row {
  std::string kind = {};  // mha, gqa or mqa
  Index kv_heads = 0;
  Index parameters = 0;
  Index kv_bytes_per_token = 0;
  Timing step = {}, token = {};
  TrainingCosts training = {};
  DecodingCosts decoding = {};
  Sharing sharing = {};
  std::vector<Learning> learnings = {};  // one for each seed
  double threshold = 0;                  // an accuracy, the same for all kinds

  double tokens_per_s() const { return 1e3 / token.ms; }
  Spread accuracy() const {
    std::vector<double> values;
    for (const Learning& learning : learnings) values.push_back(learning.accuracy);
    return spread_of(values);
  }
  Spread steps_to_threshold() const {
    std::vector<double> values;
    for (const Learning& learning : learnings) {
      const Index steps = steps_to(learning, threshold);
      if (steps > 0) values.push_back(static_cast<double>(steps));
    }
    return spread_of(values);
  }
};

double common_threshold(const std::vector<Row>& rows) {
  std::vector<Learning> all;
  for (const Row& row : rows) all.insert(all.end(), row.learnings.begin(), row.learnings.end());
  return common_threshold(all);
}

// The kinds, with their key/value heads.
std::vector<std::pair<std::string, Index>> kinds_of(const HeadsLab& lab) {
  return {{"mha", lab.heads}, {"gqa", lab.kv_heads}, {"mqa", 1}};
}

HeadsTask arguments_of(const HeadsLab& lab, Index kv_heads) {
  return {.seq = lab.seq,
          .head_size = lab.head_size,
          .heads = lab.heads,
          .kv_heads = kv_heads,
          .layers = lab.layers,
          .tokens = lab.tokens,
          .steps = lab.steps,
          .seed = lab.seed};
}

Task task_of(const HeadsLab& lab, const std::string& measurement, const std::string& kind, Index kv_heads) {
  return {.measurement = measurement,
          .variant = kind,
          .arguments = arguments_of(lab, kv_heads),
          .repeats = lab.repeats};
}

void validate(const HeadsLab& lab) {
  check(lab.heads % lab.kv_heads == 0, "lab heads: {} key/value heads do not divide {} heads", lab.kv_heads,
        lab.heads);
  check(lab.tokens >= 2 && lab.tokens < lab.seq,
        "lab heads: {} tokens to decode, must be from 2 to seq - 1, {}", lab.tokens, lab.seq - 1);
  arguments_of(lab, lab.heads).model().validate();
}

// Seconds of all trainings, by a few steps of one.
double expected_of_trainings(const HeadsLab& lab, const LabOptions& options) {
  HeadsLab few = lab;
  few.steps = std::min(lab.steps, Index{20});
  const auto probe = measure_in_child(options, task_of(few, "learning", "mha", lab.heads)).get<Learning>();
  const auto kinds = static_cast<double>(kinds_of(lab).size());
  const double trainings = kinds * static_cast<double>(lab.seeds) + (lab.convert ? kinds - 1 : 0);
  return trainings * (static_cast<double>(lab.steps) * probe.step_seconds +
                      static_cast<double>(steps_of_curve(lab.steps).size()) * probe.evaluation_seconds);
}

// Trains every row's kind with every seed.
void learn(const HeadsLab& lab, const LabOptions& options, const Console& console, std::vector<Row>& rows) {
  LabProgress progress(console, "trainings", rows.size() * static_cast<std::size_t>(lab.seeds));
  HeadsLab seeded = lab;
  for (Row& row : rows) {
    for (Index i = 0; i < lab.seeds; ++i) {
      seeded.seed = lab.seed + static_cast<std::uint64_t>(i);
      const Json result = measure_in_child(options, task_of(seeded, "learning", row.kind, row.kv_heads));
      row.learnings.push_back(result.get<Learning>());
      progress.done();
    }
  }
  const double threshold = common_threshold(rows);
  for (Row& row : rows) row.threshold = threshold;
}

// Training steps and decoding of every kind, interleaved.
Rounds measure_times(const HeadsLab& lab, const LabOptions& options, const Console& console) {
  std::vector<Task> tasks;
  for (const auto& [kind, kv_heads] : kinds_of(lab)) {
    tasks.push_back(task_of(lab, "training", kind, kv_heads));
    tasks.push_back(task_of(lab, "decoding", kind, kv_heads));
  }
  // The finding compares the decoding of the last kind, mqa, with that of the first, mha.
  const auto tokens = [](const Rounds& measured, std::size_t i) {
    return timing_of(measured.results[i].get<DecodingCosts>().token_ms, measured.count);
  };
  const auto undecided = [&](const Rounds& measured) {
    return verdict_on(tokens(measured, tasks.size() - 1), tokens(measured, 1)) ==
           Verdict::not_distinguishable;
  };
  const auto say_how_long = [&](const std::vector<double>& seconds) {
    announce(console,
             describe(expected_of_rounds(options, total(seconds)) + expected_of_trainings(lab, options)));
  };
  return measure_until_decided(options, tasks, console, undecided, say_how_long);
}

// Times are interleaved; the rest is measured once.
std::vector<Row> measure_rows(const HeadsLab& lab, const LabOptions& options, const Console& console) {
  const Rounds timed = measure_times(lab, options, console);
  std::vector<Row> rows;
  for (const auto& [kind, kv_heads] : kinds_of(lab)) {
    const nn::TransformerConfig model = arguments_of(lab, kv_heads).model();
    Row row = {.kind = kind,
               .kv_heads = kv_heads,
               .parameters = model.parameter_count(),
               .kv_bytes_per_token = model.kv_bytes_per_token()};
    timed.results[2 * rows.size()].get_to(row.training);
    timed.results[2 * rows.size() + 1].get_to(row.decoding);
    measure_in_child(options, task_of(lab, "sharing", kind, kv_heads)).get_to(row.sharing);
    row.step = timing_of(row.training.step_ms, timed.count);
    row.token = timing_of(row.decoding.token_ms, timed.count);
    rows.push_back(row);
  }
  learn(lab, options, console, rows);
  return rows;
}

std::vector<Column<Row>> size_columns() {
  return {{"kind", "kind", &Row::kind},
          {"K/V heads", "kv_heads", &Row::kv_heads},
          {"parameters", "parameters", &Row::parameters},
          {"K/V per token", "kv_bytes_per_token", &Row::kv_bytes_per_token, bytes},
          {"ms per step", "step_ms", [](const Row& r) { return r.step.ms; }, number("{:.1f}")},
          {"spread, ms", "step_spread_ms", [](const Row& r) { return r.step.spread_ms; }, number("{:.1f}")},
          {"peak tracked", "peak_bytes", [](const Row& r) { return r.training.peak; }, bytes},
          {"peak RSS", "peak_rss_bytes", [](const Row& r) { return r.training.peak_rss; }, bytes},
          {"decoding peak", "decoding_peak_bytes", [](const Row& r) { return r.decoding.peak; }, bytes},
          {"its RSS", "decoding_peak_rss_bytes", [](const Row& r) { return r.decoding.peak_rss; }, bytes},
          {"tokens/s", "tokens_per_s", &Row::tokens_per_s,
           [](const OrderedJson& value) { return format_count(value.get<double>()); }}};
}

OrderedJson if_reached(double threshold, double value) {
  return threshold > 0 ? OrderedJson(value) : OrderedJson();
}

std::vector<Column<Row>> quality_columns() {
  return {{"kind", "", &Row::kind},
          {"differs from repeated heads by", "sharing_difference",
           [](const Row& r) { return r.sharing.difference; }, number("{:.1e}")},
          {"seeds", "seeds", [](const Row& r) { return r.accuracy().count; }},
          {"", "accuracy", [](const Row& r) { return r.accuracy().mean; }},
          {"", "accuracy_deviation", [](const Row& r) { return r.accuracy().deviation; }},
          {"accuracy", "", [](const Row& r) { return format_percent(r.accuracy()); }},
          {"threshold", "threshold", [](const Row& r) { return if_reached(r.threshold, r.threshold); },
           [](const OrderedJson& value) { return fmt::format("{:.0f} %", 100 * value.get<double>()); }},
          {"", "steps_to_threshold",
           [](const Row& r) { return if_reached(r.threshold, r.steps_to_threshold().mean); }},
          {"", "steps_to_threshold_deviation",
           [](const Row& r) { return if_reached(r.threshold, r.steps_to_threshold().deviation); }},
          {"steps to it", "", [](const Row& r) { return format_spread(r.steps_to_threshold(), 0); }}};
}

OrderedJson rows_json(const std::vector<Row>& rows) {
  std::vector<Column<Row>> columns = size_columns();
  for (Column<Row>& column : quality_columns()) columns.push_back(std::move(column));
  return json_of(columns, rows);
}

std::vector<ConversionRow> measure_conversions(const HeadsLab& lab, const LabOptions& options) {
  std::vector<ConversionRow> rows;
  for (const auto& [kind, kv_heads] : kinds_of(lab)) {
    if (kind == "mha") continue;
    rows.push_back({.kind = kind});
    measure_in_child(options, task_of(lab, "conversion", kind, kv_heads)).get_to(rows.back().conversion);
  }
  return rows;
}

bool all_exact(const std::vector<Row>& rows) {
  return std::all_of(rows.begin(), rows.end(), [](const Row& r) { return r.sharing.difference == 0; });
}

// "mha 91.2 ± 1.0 %, gqa ..., mqa ...; mqa learns less than mha", or that they are not distinguishable. `less` and
// `more` say what a kind does whose number is lower or higher.
std::string compared(const std::vector<Row>& rows, Spread (Row::*number)() const,
                     const std::function<std::string(const Spread&)>& show, std::string_view less,
                     std::string_view more) {
  std::string numbers, differences;
  const Spread mha = (rows.front().*number)();
  for (const Row& r : rows) {
    const Spread own = (r.*number)();
    numbers += fmt::format("{}{} {}", numbers.empty() ? "" : ", ", r.kind, show(own));
    if (!distinguishable(own, mha)) continue;
    differences += fmt::format("; {} {} than mha", r.kind, own.mean < mha.mean ? less : more);
  }
  return numbers + (differences.empty() ? "; these are not distinguishable" : differences);
}

std::string finding_of_learning(const HeadsLab& lab, const std::vector<Row>& rows) {
  const auto percent = [](const Spread& s) { return format_percent(s); };
  const auto steps = [](const Spread& s) { return format_spread(s, 0); };
  std::string text = fmt::format("accuracy of recall after {} steps over {} seeds: {}", lab.steps, lab.seeds,
                                 compared(rows, &Row::accuracy, percent, "learns less", "learns more"));
  const double threshold = rows.front().threshold;
  if (threshold == 0) return text + "; not all trainings reach 10 %";
  return text + fmt::format("; steps to {:.0f} %: {}", 100 * threshold,
                            compared(rows, &Row::steps_to_threshold, steps, "needs fewer", "needs more"));
}

std::string finding_of(const HeadsLab& lab, const std::vector<Row>& rows) {
  const Row &mha = rows.front(), &mqa = rows.back();
  return fmt::format(
      "mqa keeps {:.0f}x less K/V per token than mha; decoding: {}; {}; shared heads "
      "compute {} repeated ones",
      static_cast<double>(mha.kv_bytes_per_token) / static_cast<double>(mqa.kv_bytes_per_token),
      speed_finding("mqa", "mha", mqa.token.round_ms, mha.token.round_ms, verdict_on(mqa.token, mha.token)),
      finding_of_learning(lab, rows), all_exact(rows) ? "exactly what" : "NOT what");
}

Chart bars(const std::string& title, const std::string& axis, const std::vector<Row>& rows,
           double (*value)(const Row&)) {
  Chart chart = {.title = title,
                 .kind = Chart::Kind::bars,
                 .x = {.title = "kind"},
                 .y = {.title = axis},
                 .series = {{.name = title}}};
  for (const Row& row : rows) {
    chart.series[0].points.emplace_back(static_cast<double>(chart.categories.size()), value(row));
    chart.categories.push_back(row.kind);
  }
  return chart;
}

OrderedJson configuration_of(const HeadsLab& lab) {
  return {{"seq", lab.seq},           {"head_size", lab.head_size}, {"heads", lab.heads},
          {"kv_heads", lab.kv_heads}, {"layers", lab.layers},       {"tokens", lab.tokens},
          {"steps", lab.steps},       {"seeds", lab.seeds},         {"repeats", lab.repeats},
          {"seed", lab.seed}};
}

}  // namespace

int run_heads_lab(const HeadsLab& lab, const LabOptions& options, const Console& console) {
  validate(lab);
  announce(console, fmt::format("mha, gqa and mqa: {} of training steps and decoding, interleaved; then "
                                "{} steps of recall each, with {} seeds{}",
                                planned_rounds(options), lab.steps, lab.seeds,
                                lab.convert ? "; then the conversions" : ""));
  const std::vector<Row> rows = measure_rows(lab, options, console);
  LabResult result = {.name = "heads", .configuration = configuration_of(lab), .rows = rows_json(rows)};
  result.report = {
      .title = "MHA, GQA and MQA",
      .finding = finding_of(lab, rows),
      .tables = {table_of("Training and decoding", size_columns(), rows),
                 table_of(
                     fmt::format("What they compute, and what they learn of recall in {} steps", lab.steps),
                     quality_columns(), rows)},
      .charts = {bars("K/V per token", "bytes", rows,
                      [](const Row& r) { return static_cast<double>(r.kv_bytes_per_token); }),
                 bars("Decoding", "tokens/s", rows, [](const Row& r) { return r.tokens_per_s(); })}};
  if (lab.convert) {
    const auto conversions = measure_conversions(lab, options);
    result.details = {{"conversions", json_of(conversion_columns(), conversions)}};
    result.report.finding += finding_of_conversions(conversions);
    result.report.tables.push_back(table_of("Validation loss of a trained MHA with its K/V heads pooled",
                                            conversion_columns(), conversions));
  }
  publish(options, result, console);
  return all_exact(rows) ? kSuccess : kFailure;
}

}  // namespace tilegrad::train
