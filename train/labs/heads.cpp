#include "tilegrad/train/labs/heads.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "tilegrad/autograd/tape.h"
#include "tilegrad/base/format.h"
#include "tilegrad/nn/generate.h"
#include "tilegrad/nn/kv_pooling.h"
#include "tilegrad/train/labs/lab_profile.h"
#include "tilegrad/train/labs/probes.h"
#include "tilegrad/train/measure/tensor_difference.h"
#include "tilegrad/train/run/presets.h"
#include "tilegrad/train/run/trainer.h"

namespace tilegrad::train {

namespace {

// MHA, GQA or MQA.
struct Kind {
  std::string name;
  Index kv_heads = 0;
};

std::vector<Kind> kinds_of(const HeadsLab& lab) {
  return {{"mha", lab.heads}, {"gqa", lab.groups}, {"mqa", 1}};
}

nn::TransformerConfig model_of(const Json& task, Index kv_heads) {
  const auto heads = task.at("heads").get<Index>();
  return {.vocabulary = kVocabulary,
          .context = task.at("seq").get<Index>(),
          .layers = task.at("layers").get<Index>(),
          .width = heads * task.at("d").get<Index>(),
          .attention = {.heads = heads, .kv_heads = kv_heads}};
}

RandomKey key_of(const Json& task) { return RandomKey{task.at("seed").get<std::uint64_t>()}; }

// x (1, T, Hkv, D) with each head repeated for all query heads that share it: (1, T, Hq, D).
Tensor repeat_heads(const Tensor& x, Index heads) {
  const Index time = x.dim(1), kv_heads = x.dim(2), size = x.dim(3), group = heads / kv_heads;
  Tensor y = Tensor::empty({1, time, heads, size}, x.dtype());
  const auto source = x.view<float>().begin();
  const auto target = y.mut<float>().begin();
  for (Index t = 0; t < time; ++t) {
    for (Index h = 0; h < heads; ++h) {
      std::copy_n(source + (t * kv_heads + h / group) * size, size, target + (t * heads + h) * size);
    }
  }
  return y;
}

// A toy task that takes a moment, for models of this many heads.
RunConfig toy_config(const Json& task, Index kv_heads) {
  RunConfig config = task_preset(data::TaskKind::sort);
  config.model.attention.heads = task.at("heads").get<Index>();
  config.model.attention.kv_heads = kv_heads;
  config.model.width = 8 * config.model.attention.heads;
  config.steps = task.at("steps").get<Index>();
  config.warmup = std::min(config.warmup, config.steps / 10);
  config.seed = task.at("seed").get<std::uint64_t>();
  config.out = "unused";
  return config;
}

void train_until(Trainer& trainer, Index step) {
  while (trainer.state().step < step) trainer.step();
}

}  // namespace

Json probe_training(const Json& task) {
  nn::Transformer model(model_of(task, task.at("kv_heads").get<Index>()), key_of(task).fold(0));
  const Tensor tokens = random_tokens(1, model.config.context, key_of(task).fold(1));
  const auto step = [&] {
    nn::zero_grad(nn::parameters(model));
    Tape tape;
    const Var loss = cross_entropy(model(tokens, {.training = true, .key = {}}), tokens);
    tape.backward(loss);
  };
  step();  // makes the scratch memory that threads keep
  nn::zero_grad(nn::parameters(model));
  memory::reset_peak();
  step();
  const Index peak = memory::usage().peak;
  return {{"peak", peak}, {"step_ms", time_calls(task, "step", step)}};
}

Json probe_decoding(const Json& task) {
  using Clock = std::chrono::steady_clock;
  const nn::Transformer model(model_of(task, task.at("kv_heads").get<Index>()), key_of(task).fold(0));
  const auto count = task.at("tokens").get<Index>();
  const Tensor prompt = random_tokens(1, model.config.context - count, key_of(task).fold(1));
  std::vector<double> ms;  // of each token but the first, which the whole prompt comes before
  memory::reset_peak();
  LabProfile profile(task, "token");
  std::optional<Clock::time_point> last;
  nn::generate(model, prompt.view<std::int32_t>(), count, {}, [&](std::int32_t) {
    const auto now = Clock::now();
    if (last) ms.push_back(std::chrono::duration<double, std::milli>(now - *last).count());
    profile.end();
    profile.begin();
    last = Clock::now();
    return true;
  });
  profile.write();
  return {{"peak", memory::usage().peak}, {"token_ms", ms}};
}

// MHA whose key and value weights are the shared ones, repeated, has the shared keys and values, repeated.
// They are repeated here and not the weights, since a matrix product of another width may round otherwise.
Json probe_sharing(const Json& task) {
  const nn::TransformerConfig config = model_of(task, task.at("kv_heads").get<Index>());
  const nn::Transformer model(config, key_of(task).fold(0));
  const nn::Attention& layer = model.blocks[0].attention;
  const Var x = Tensor::normal({1, config.context, config.width}, config.dtype, key_of(task).fold(1));
  const auto heads_of = [&](const nn::Linear& linear, Index heads) {
    return linear(x).value().reshape({1, config.context, heads, config.head_size()});
  };
  const nn::AttentionConfig& c = layer.config;
  const Tensor q = heads_of(layer.query, c.heads);
  const Tensor k = heads_of(layer.key, c.kv_heads), v = heads_of(layer.value, c.kv_heads);
  const auto attend = [&](const Tensor& keys, const Tensor& values) {
    return attention(q, keys, values, c.kernel, {.causal = true}).value();
  };
  const Tensor shared = attend(k, v), repeated = attend(repeat_heads(k, c.heads), repeat_heads(v, c.heads));
  return {{"difference", largest_difference(shared, repeated)}};
}

Json probe_learning(const Json& task) {
  Trainer trainer(toy_config(task, task.at("kv_heads").get<Index>()));
  train_until(trainer, task.at("steps").get<Index>());
  const Evaluation result = trainer.evaluate();
  return {{"loss", result.loss}, {"accuracy", result.accuracy}, {"exact", result.exact}};
}

// Losses of a trained MHA whose heads become `kv_heads`, right then and after some more steps.
Json probe_conversion(const Json& task) {
  const auto steps = task.at("steps").get<Index>();
  Trainer mha(toy_config(task, task.at("heads").get<Index>()));
  train_until(mha, steps);
  Trainer converted(toy_config(task, task.at("kv_heads").get<Index>()));
  nn::pool_kv_heads(converted.model(), mha.model());
  converted.set_state(mha.state());
  Json losses = Json::array({mha.evaluate().loss, converted.evaluate().loss});
  for (const Index percent : {1, 5, 10}) {
    train_until(converted, steps + (steps * percent + 99) / 100);
    losses.push_back(converted.evaluate().loss);
  }
  return {{"losses", losses}};
}

namespace {

// What was measured of one kind.
struct Row {
  std::string kind;
  Index kv_heads = 0;
  Index parameters = 0;
  Index kv_bytes_per_token = 0;
  Timing step = {};
  Index peak = 0, peak_rss = 0;  // bytes, of forward and backward
  Timing token = {};
  Index decoding_peak = 0, decoding_peak_rss = 0;  // bytes
  double difference = 0;                           // of attention's output, from MHA with repeated heads
  double accuracy = 0;                             // on the toy task

  double tokens_per_s() const { return 1e3 / token.ms; }
};

Json to_json(const HeadsLab& lab) {
  return {{"seq", lab.seq},       {"d", lab.d},           {"heads", lab.heads}, {"gqa_groups", lab.groups},
          {"layers", lab.layers}, {"tokens", lab.tokens}, {"steps", lab.steps}, {"repeats", lab.repeats},
          {"seed", lab.seed}};
}

Json task_of(const HeadsLab& lab, const std::string& probe, const Kind& kind) {
  Json task = to_json(lab);
  task["probe"] = probe;
  task["kv_heads"] = kind.kv_heads;
  task["label"] = kind.name;
  return task;
}

void validate(const HeadsLab& lab) {
  check(lab.heads % lab.groups == 0, "lab heads: {} groups do not divide {} heads", lab.groups, lab.heads);
  check(lab.tokens >= 2 && lab.tokens < lab.seq,
        "lab heads: {} tokens to decode, must be from 2 to seq - 1, {}", lab.tokens, lab.seq - 1);
  model_of(to_json(lab), lab.heads).validate();
}

// Times are taken by turns; the rest is measured once.
std::vector<Row> measure_rows(const HeadsLab& lab, const LabOptions& options) {
  const auto kinds = kinds_of(lab);
  std::vector<Json> tasks;
  for (const Kind& kind : kinds) {
    tasks.push_back(task_of(lab, "training", kind));
    tasks.push_back(task_of(lab, "decoding", kind));
  }
  const std::vector<Json> timed = measure_by_turns(options, tasks);
  std::vector<Row> rows;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const Json &training = timed[2 * i], &decoding = timed[2 * i + 1];
    const nn::TransformerConfig model = model_of(tasks[2 * i], kinds[i].kv_heads);
    const Json sharing = measure_apart(options, task_of(lab, "sharing", kinds[i]));
    const Json learning = measure_apart(options, task_of(lab, "learning", kinds[i]));
    rows.push_back({.kind = kinds[i].name,
                    .kv_heads = kinds[i].kv_heads,
                    .parameters = model.parameter_count(),
                    .kv_bytes_per_token = model.kv_bytes_per_token(),
                    .step = timing_of(training.at("step_ms")),
                    .peak = training.at("peak").get<Index>(),
                    .peak_rss = training.at("peak_rss").get<Index>(),
                    .token = timing_of(decoding.at("token_ms")),
                    .decoding_peak = decoding.at("peak").get<Index>(),
                    .decoding_peak_rss = decoding.at("peak_rss").get<Index>(),
                    .difference = sharing.at("difference").get<double>(),
                    .accuracy = learning.at("accuracy").get<double>()});
  }
  return rows;
}

Json json_of(const Row& row) {
  return {{"kind", row.kind},
          {"kv_heads", row.kv_heads},
          {"parameters", row.parameters},
          {"kv_bytes_per_token", row.kv_bytes_per_token},
          {"step_ms", row.step.ms},
          {"step_spread_ms", row.step.spread_ms},
          {"peak_bytes", row.peak},
          {"peak_rss_bytes", row.peak_rss},
          {"decoding_peak_bytes", row.decoding_peak},
          {"decoding_peak_rss_bytes", row.decoding_peak_rss},
          {"tokens_per_s", row.tokens_per_s()},
          {"sharing_difference", row.difference},
          {"accuracy", row.accuracy}};
}

Table size_table(const std::vector<Row>& rows) {
  Table table = {.title = "Training and decoding",
                 .columns = {"kind", "K/V heads", "parameters", "K/V a token", "ms a step", "spread, ms",
                             "peak tracked", "peak RSS", "decoding peak", "its RSS", "tokens/s"},
                 .rows = {}};
  for (const Row& r : rows) {
    table.rows.push_back({r.kind, fmt::format("{}", r.kv_heads), fmt::format("{}", r.parameters),
                          format_bytes(r.kv_bytes_per_token), fmt::format("{:.1f}", r.step.ms),
                          fmt::format("{:.1f}", r.step.spread_ms), format_bytes(r.peak),
                          format_bytes(r.peak_rss), format_bytes(r.decoding_peak),
                          format_bytes(r.decoding_peak_rss), format_count(r.tokens_per_s())});
  }
  return table;
}

Table quality_table(const HeadsLab& lab, const std::vector<Row>& rows) {
  Table table = {
      .title = fmt::format("What they compute, and what they learn of sorting in {} steps", lab.steps),
      .columns = {"kind", "differs from repeated heads by", "accuracy, %"},
      .rows = {}};
  for (const Row& r : rows) {
    table.rows.push_back(
        {r.kind, fmt::format("{:.1e}", r.difference), fmt::format("{:.1f}", 100 * r.accuracy)});
  }
  return table;
}

// A row of losses for GQA and MQA: MHA's, right after the conversion, and after 1, 5 and 10 % more steps.
Json measure_conversions(const HeadsLab& lab, const LabOptions& options) {
  Json conversions = Json::array();
  for (const Kind& kind : kinds_of(lab)) {
    if (kind.name == "mha") continue;
    conversions.push_back(
        {{"kind", kind.name},
         {"losses", measure_apart(options, task_of(lab, "conversion", kind)).at("losses")}});
  }
  return conversions;
}

Table conversion_table(const Json& conversions) {
  Table table = {.title = "Validation loss of a trained MHA with its K/V heads pooled",
                 .columns = {"to", "MHA", "right after", "+1 % steps", "+5 % steps", "+10 % steps"},
                 .rows = {}};
  for (const Json& conversion : conversions) {
    std::vector<std::string> cells = {conversion.at("kind").get<std::string>()};
    for (const Json& loss : conversion.at("losses"))
      cells.push_back(fmt::format("{:.4f}", loss.get<double>()));
    table.rows.push_back(std::move(cells));
  }
  return table;
}

bool all_exact(const std::vector<Row>& rows) {
  return std::all_of(rows.begin(), rows.end(), [](const Row& r) { return r.difference == 0; });
}

std::string finding_of(const HeadsLab& lab, const std::vector<Row>& rows) {
  const Row &mha = rows.front(), &mqa = rows.back();
  std::string accuracies;
  for (const Row& r : rows) {
    accuracies += fmt::format("{}{} {:.1f} %", accuracies.empty() ? "" : ", ", r.kind, 100 * r.accuracy);
  }
  return fmt::format(
      "mqa keeps {:.0f}x less K/V a token than mha and decodes {:.2f}x as fast; accuracy after {} steps: {}; "
      "shared heads compute {} repeated ones",
      static_cast<double>(mha.kv_bytes_per_token) / static_cast<double>(mqa.kv_bytes_per_token),
      mqa.tokens_per_s() / mha.tokens_per_s(), lab.steps, accuracies,
      all_exact(rows) ? "exactly what" : "NOT what");
}

std::string finding_of_conversions(const Json& conversions) {
  std::string text;
  for (const Json& conversion : conversions) {
    const auto losses = conversion.at("losses").get<std::vector<double>>();
    text += fmt::format(
        "; pooled to {} the loss rises from {:.4f} to {:.4f}, and is {:.4f} after 10 % more steps",
        conversion.at("kind").get<std::string>(), losses[0], losses[1], losses.back());
  }
  return text;
}

Chart bars(const std::string& title, const std::string& axis, const std::vector<Row>& rows,
           double (*value)(const Row&)) {
  Chart chart = {.title = title,
                 .note = "",
                 .kind = Chart::Kind::bars,
                 .x = {.title = "kind"},
                 .y = {.title = axis},
                 .series = {{.name = title, .points = {}}},
                 .categories = {}};
  for (const Row& row : rows) {
    chart.series[0].points.emplace_back(static_cast<double>(chart.categories.size()), value(row));
    chart.categories.push_back(row.kind);
  }
  return chart;
}

}  // namespace

int run_heads_lab(const HeadsLab& lab, const LabOptions& options, const Console& console) {
  validate(lab);
  const std::vector<Row> rows = measure_rows(lab, options);
  LabResult result = {.name = "heads", .configuration = to_json(lab), .rows = Json::array(), .report = {}};
  for (const Row& row : rows) result.rows.push_back(json_of(row));
  result.report = {
      .title = "MHA, GQA and MQA",
      .finding = finding_of(lab, rows),
      .tables = {size_table(rows), quality_table(lab, rows)},
      .charts = {bars("K/V a token", "bytes", rows,
                      [](const Row& r) { return static_cast<double>(r.kv_bytes_per_token); }),
                 bars("Decoding", "tokens/s", rows, [](const Row& r) { return r.tokens_per_s(); })}};
  if (lab.convert) {
    const Json conversions = measure_conversions(lab, options);
    result.details = {{"conversions", conversions}};
    result.report.finding += finding_of_conversions(conversions);
    result.report.tables.push_back(conversion_table(conversions));
  }
  publish(options, result, console);
  return all_exact(rows) ? kSuccess : kFailure;
}

}  // namespace tilegrad::train
