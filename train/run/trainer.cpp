#include "tilegrad/train/run/trainer.h"

#include <chrono>
#include <cmath>
#include <numbers>
#include <optional>

#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/base/format.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/nn/kv_pooling.h"
#include "tilegrad/train/run/dataset.h"
#include "tilegrad/train/run/stage_costs.h"

namespace tilegrad::train {

namespace {

using Clock = std::chrono::steady_clock;

const RunConfig& validated(const RunConfig& config) {
  config.validate();
  return config;
}

// Training needs every parameter four times, as value, gradient, and two moments, and a little memory in
// addition for what describes them.
void check_fits(const nn::TransformerConfig& model) {
  constexpr double kDescriptionsOfBlock = 16 << 10;
  const double bytes =
      4.0 * static_cast<double>(model.parameter_count()) * static_cast<double>(bytes_of(model.dtype)) +
      kDescriptionsOfBlock * static_cast<double>(model.layers);
  check(bytes <= static_cast<double>(memory::limit()),
        "train: {} layers of width {} need {:.1f} GiB for parameters, gradients and optimiser, "
        "there are {} of memory",
        model.layers, model.width, bytes / (1 << 30), format_bytes(memory::limit()));
}

// The least that a batch needs: its tokens, their vectors, and their logits.
void check_batch_fits(const nn::TransformerConfig& model, Index batch) {
  const double bytes = static_cast<double>(batch) * static_cast<double>(model.context) *
                       static_cast<double>(model.vocabulary + model.width) *
                       static_cast<double>(bytes_of(model.dtype));
  check(bytes <= static_cast<double>(memory::limit()),
        "train: a batch of {} sequences of {} tokens needs at least {:.1f} GiB, there are {} of memory",
        batch, model.context, bytes / (1 << 30), format_bytes(memory::limit()));
}

nn::Transformer build_model(const RunConfig& config, Index vocabulary) {
  const nn::TransformerConfig model_config = config.model_for(vocabulary);
  check_fits(model_config);
  check_batch_fits(model_config, config.batch);
  const RandomKey key = RandomKey{config.seed}.fold(kWeights);
  nn::Transformer model(model_config, key);
  if (config.kv_init == KvInit::pooled && model_config.attention.kv_heads < model_config.attention.heads) {
    nn::TransformerConfig full = model_config;
    full.attention.kv_heads = full.attention.heads;
    nn::Transformer all_heads(full, key);
    nn::pool_kv_heads(model, all_heads);
  }
  return model;
}

Tensor tokens_of(const data::Batch& batch) {
  return Tensor::from<std::int32_t>({batch.batch, batch.time}, batch.tokens);
}

Tensor targets_of(const data::Batch& batch) {
  static_assert(data::kIgnored == tilegrad::kIgnored);
  return Tensor::from<std::int32_t>({batch.batch, batch.time}, batch.targets);
}

// Counts of right answers over any number of batches.
struct Score {
  double loss_sum = 0;
  Index asked = 0, right = 0, sequences = 0, exact = 0;

  void add(const data::Batch& batch, double mean_loss, const Tensor& predicted) {
    const auto best = predicted.view<std::int32_t>();
    const Index asked_before = asked;
    for (Index b = 0; b < batch.batch; ++b) {
      bool all_right = true;
      for (Index t = 0; t < batch.time; ++t) {
        const auto i = static_cast<std::size_t>(b * batch.time + t);
        if (batch.targets[i] == data::kIgnored) continue;
        const bool hit = best[i] == batch.targets[i];
        ++asked;
        right += hit;
        all_right = all_right && hit;
      }
      ++sequences;
      exact += all_right;
    }
    loss_sum += mean_loss * static_cast<double>(asked - asked_before);
  }
};

}  // namespace

double learning_rate(const RunConfig& c, Index step) {
  if (step < c.warmup) return c.lr * static_cast<double>(step + 1) / static_cast<double>(c.warmup);
  const auto length = static_cast<double>(std::max<Index>(1, c.steps - c.warmup));
  const double done = std::min(1.0, static_cast<double>(step - c.warmup) / length);
  return c.min_lr + 0.5 * (c.lr - c.min_lr) * (1 + std::cos(std::numbers::pi * done));
}

Trainer::Trainer(const RunConfig& config)
    : config_(validated(config)),
      data_(make_dataset(config_)),
      model_(build_model(config_, data_->vocabulary())),
      optimizer_(nn::parameters(model_), config_.adamw) {
  if (config_.threads > 0) kernels::set_threads(static_cast<int>(std::min<Index>(config_.threads, 1024)));
  model_.schedule = schedule_of(config_.checkpoint, config_.model.layers);
  if (const auto* budget = std::get_if<MemoryBudget>(&config_.checkpoint)) plan_for_budget(budget->bytes);
}

// Measures the stages on the first batch; all others have its shape.
void Trainer::plan_for_budget(Index budget) {
  const data::Batch batch = data_->train(0, config_.batch);
  const nn::ForwardOptions options = {.training = true, .key = RandomKey{config_.seed}};
  model_.schedule =
      plan_checkpoints(measure_stages(model_, tokens_of(batch), targets_of(batch), options), budget);
}

void Trainer::set_state(const TrainState& state) {
  state_ = state;
  optimizer_.set_steps(state.step);
}

Var Trainer::forward(const data::Batch& batch, const nn::ForwardOptions& options) const {
  return model_(tokens_of(batch), options);
}

StepReport Trainer::step(Profiler* profiler) {
  const auto start = Clock::now();
  memory::reset_peak();
  const Index step = state_.step;
  std::optional<Profiler::Call> profiled;
  if (profiler != nullptr) profiled.emplace(*profiler, step + 1);
  const data::Batch batch = data_->train(step, config_.batch);
  const nn::ForwardOptions options = {
      .training = true, .key = RandomKey{config_.seed}.fold(kDropout).fold(static_cast<std::uint64_t>(step))};

  StepReport report;
  {
    Tape tape(Tape::Options{.detect_anomaly = config_.detect_anomaly});
    const Var loss = cross_entropy(forward(batch, options), targets_of(batch));
    report.loss = loss.value().item();
    tape.backward(loss);
  }
  if (profiled) profiled->update();
  report.live_bytes = memory::usage().live;
  report.lr = learning_rate(config_, step);
  report.grad_norm = optimizer_.step(report.lr);
  nn::zero_grad(nn::parameters(model_));

  state_.step = step + 1;
  state_.loss_sum += report.loss;
  ++state_.loss_count;
  report.step = state_.step;
  const memory::Usage usage = memory::usage();
  report.peak_bytes = usage.peak;
  report.at_peak = usage.at_peak;
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  report.ms = 1e3 * seconds;
  report.tokens_per_s = static_cast<double>(batch.batch * batch.time) / seconds;
  return report;
}

Evaluation Trainer::evaluate(Index examples, const std::function<bool()>& stop) const {
  constexpr Index kBatch = 64;
  const Tape::Pause no_gradients;
  const Index all = data_->validation_batches(kBatch);
  const Index batches = examples == 0 ? all : std::min(all, (examples + kBatch - 1) / kBatch);
  Score score;
  for (Index i = 0; i < batches && !(stop && stop()); ++i) {
    const data::Batch batch = data_->validation(i, kBatch);
    const Var logits = forward(batch, {.training = false, .key = {}});
    score.add(batch, cross_entropy(logits, targets_of(batch)).value().item(), argmax(logits));
  }
  return {.loss = score.loss_sum / static_cast<double>(score.asked),
          .accuracy = static_cast<double>(score.right) / static_cast<double>(score.asked),
          .exact = static_cast<double>(score.exact) / static_cast<double>(score.sequences)};
}

double Trainer::take_mean_loss() {
  const double mean = state_.loss_sum / static_cast<double>(std::max<Index>(1, state_.loss_count));
  state_.loss_sum = 0;
  state_.loss_count = 0;
  return mean;
}

}  // namespace tilegrad::train
