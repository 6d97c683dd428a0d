#include "tilegrad/train/labs/heads_measure.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "tilegrad/autograd/tape.h"
#include "tilegrad/nn/generate.h"
#include "tilegrad/nn/kv_pooling.h"
#include "tilegrad/train/labs/lab_duration.h"
#include "tilegrad/train/labs/lab_profile.h"
#include "tilegrad/train/measure/random_tokens.h"
#include "tilegrad/train/measure/tensor_difference.h"
#include "tilegrad/train/run/presets.h"
#include "tilegrad/train/run/trainer.h"

namespace tilegrad::train {

namespace {

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

// Recall, which attention alone can learn: the value of a key is asked for far from it. The sequences are short, so that
// models of small heads learn it in a few hundred steps.
RunConfig recall_config(const HeadsTask& task, Index kv_heads) {
  RunConfig config = task_preset(data::TaskKind::recall);
  config.task.length = 18;
  config.task.symbols = 8;
  config.task.pairs = 6;
  config.model.context = config.task.context();
  config.model.attention.heads = task.heads;
  config.model.attention.kv_heads = kv_heads;
  config.model.width = 8 * task.heads;
  config.steps = task.steps;
  config.warmup = std::min(config.warmup, config.steps / 10);
  config.seed = task.seed;
  config.out = "unused";
  return config;
}

void train_until(Trainer& trainer, Index step) {
  while (trainer.state().step < step) trainer.step();
}

}  // namespace

nn::TransformerConfig HeadsTask::model() const {
  return {.vocabulary = kVocabulary,
          .context = seq,
          .layers = layers,
          .width = heads * head_size,
          .attention = {.heads = heads, .kv_heads = kv_heads}};
}

TrainingCosts measure_training(const HeadsTask& task, const CallTimer& timer) {
  nn::Transformer model(task.model(), RandomKey{task.seed}.fold(0));
  const Tensor tokens = random_tokens(1, model.config.context, RandomKey{task.seed}.fold(1));
  const auto step = [&] {
    nn::zero_grad(nn::parameters(model));
    Tape tape;
    const Var loss = model.loss(tokens, tokens, {.training = true, .key = {}});
    tape.backward(loss);
  };
  step();  // makes the scratch memory that threads keep
  nn::zero_grad(nn::parameters(model));
  memory::reset_peak();
  step();
  const Index peak = memory::usage().peak;
  return {.peak = peak, .step_ms = timer.time("step", step)};
}

DecodingCosts measure_decoding(const HeadsTask& task, const CallTimer& timer) {
  using Clock = std::chrono::steady_clock;
  const nn::Transformer model(task.model(), RandomKey{task.seed}.fold(0));
  const Index count = task.tokens;
  const Tensor prompt = random_tokens(1, model.config.context - count, RandomKey{task.seed}.fold(1));
  std::vector<double> ms;
  memory::reset_peak();
  LabProfile profile(timer.profile(), "token");
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
  return {.peak = memory::usage().peak, .token_ms = ms};
}

// MHA whose key and value weights are the shared ones, repeated, has the shared keys and values, repeated.
// They are repeated here and not the weights, since a matrix product of another width may round otherwise.
Sharing measure_sharing(const HeadsTask& task) {
  const nn::TransformerConfig config = task.model();
  const nn::Transformer model(config, RandomKey{task.seed}.fold(0));
  const nn::Attention& layer = model.blocks[0].attention;
  const Var x = Tensor::normal({1, config.context, config.width}, config.dtype, RandomKey{task.seed}.fold(1));
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
  return {.difference = largest_difference(shared, repeated)};
}

std::vector<Index> steps_of_curve(Index steps) {
  constexpr Index kPoints = 50;
  const Index distance = (steps + kPoints - 1) / kPoints;
  std::vector<Index> points;
  for (Index step = 0; step < steps; points.push_back(step)) step = std::min(step + distance, steps);
  return points;
}

Learning measure_learning(const HeadsTask& task) {
  Trainer trainer(recall_config(task, task.kv_heads));
  Learning learning = {.steps = steps_of_curve(task.steps)};
  Evaluation result;
  const Stopwatch watch;
  double evaluating = 0;
  for (const Index step : learning.steps) {
    train_until(trainer, step);
    const double begin = watch.seconds();
    result = trainer.evaluate();
    evaluating += watch.seconds() - begin;
    learning.accuracies.push_back(result.accuracy);
  }
  learning.step_seconds = (watch.seconds() - evaluating) / static_cast<double>(task.steps);
  learning.evaluation_seconds = evaluating / static_cast<double>(learning.steps.size());
  learning.loss = result.loss;
  learning.accuracy = result.accuracy;
  learning.exact = result.exact;
  return learning;
}

Index steps_to(const Learning& learning, double accuracy) {
  const auto& curve = learning.accuracies;
  const auto found = std::find_if(curve.begin(), curve.end(), [&](double a) { return a >= accuracy; });
  return found == curve.end() ? 0 : learning.steps[found - curve.begin()];
}

double common_threshold(const std::vector<Learning>& learnings) {
  for (int tenths = 9; tenths > 0; --tenths) {
    const bool reached = std::all_of(learnings.begin(), learnings.end(),
                                     [&](const Learning& l) { return steps_to(l, tenths / 10.0) > 0; });
    if (reached) return tenths / 10.0;
  }
  return 0;
}

Conversion measure_conversion(const HeadsTask& task) {
  Trainer mha(recall_config(task, task.heads));
  train_until(mha, task.steps);
  Trainer converted(recall_config(task, task.kv_heads));
  nn::pool_kv_heads(converted.model(), mha.model());
  converted.set_state(mha.state());
  std::vector<double> losses = {mha.evaluate().loss, converted.evaluate().loss};
  for (const Index percent : {1, 5, 10}) {
    train_until(converted, task.steps + (task.steps * percent + 99) / 100);
    losses.push_back(converted.evaluate().loss);
  }
  return {.losses = losses};
}

}  // namespace tilegrad::train
