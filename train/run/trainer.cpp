#include "tilegrad/train/run/trainer.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/base/format.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/nn/kv_pooling.h"
#include "tilegrad/train/run/dataset.h"
#include "tilegrad/train/run/learning_rate.h"
#include "tilegrad/train/run/stage_costs.h"

namespace tilegrad::train {

namespace {

using Clock = std::chrono::steady_clock;

const RunConfig& validated(const RunConfig& config) {
  config.validate();
  return config;
}

// Training needs every parameter as value, as gradient and in the optimiser's state, and a little memory in addition
// for what describes them.
void check_fits(const nn::TransformerConfig& model, const OptimizerSettings& optimizer) {
  constexpr double kDescriptionsOfBlock = 16 << 10;
  const double bytes = static_cast<double>((2 + state_tensors(optimizer)) * model.parameter_count()) *
                           static_cast<double>(bytes_of(model.dtype)) +
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
  check_fits(model_config, config.optimizer);
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

Index asked_in(const data::Batch& batch) {
  return std::ssize(batch.targets) - std::count(batch.targets.begin(), batch.targets.end(), data::kIgnored);
}

// The i-th part of `parts` of equal size.
data::Batch part_of(const data::Batch& whole, Index i, Index parts) {
  const Index rows = whole.batch / parts;
  const auto slice = [&](const std::vector<std::int32_t>& all) {
    const auto begin = all.begin() + i * rows * whole.time;
    return std::vector<std::int32_t>(begin, begin + rows * whole.time);
  };
  return {.batch = rows, .time = whole.time, .tokens = slice(whole.tokens), .targets = slice(whole.targets)};
}

}  // namespace

Trainer::Trainer(const RunConfig& config)
    : config_(validated(config)),
      data_(make_dataset(config_)),
      model_(build_model(config_, data_->vocabulary())),
      optimizer_(make_optimizer(nn::parameters(model_), config_.optimizer)) {
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
  optimizer_->set_steps(state.step);
}

// Adds `share` times the gradients of a batch to those of the parameters, and returns its loss.
double Trainer::loss_with_gradients(const data::Batch& batch, RandomKey key, double share) {
  Tape tape(Tape::Options{.detect_anomaly = config_.detect_anomaly});
  const Var loss = model_.loss(tokens_of(batch), targets_of(batch), {.training = true, .key = key});
  const double value = loss.value().item();
  tape.backward(share == 1 ? loss : scale(loss, share));
  return value;
}

StepReport Trainer::step(Profiler* profiler) {
  const auto start = Clock::now();
  memory::reset_peak();
  const Index step = state_.step;
  std::optional<Profiler::Call> profiled;
  if (profiler != nullptr) profiled.emplace(*profiler, step + 1);
  // Drawn at once, so that a step learns from the same examples however they are divided.
  const Index parts = config_.accumulate;
  const data::Batch batch = data_->train(step, config_.batch * parts);
  const RandomKey key = RandomKey{config_.seed}.fold(kDropout).fold(static_cast<std::uint64_t>(step));

  StepReport report;
  if (parts == 1) {
    report.loss = loss_with_gradients(batch, key, 1);
  } else {
    const auto asked = static_cast<double>(asked_in(batch));
    for (Index i = 0; i < parts; ++i) {
      const data::Batch part = part_of(batch, i, parts);
      const double share = static_cast<double>(asked_in(part)) / asked;
      report.loss += share * loss_with_gradients(part, key.fold(static_cast<std::uint64_t>(i)), share);
    }
  }
  if (profiled) profiled->update();
  report.live_bytes = memory::usage().live;
  report.lr = learning_rate(config_, step);
  report.grad_norm = optimizer_->step(report.lr);
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
  return train::evaluate(model_, *data_, examples, stop);
}

double Trainer::record(const Evaluation& evaluation) {
  state_.evaluations.add(state_.step, evaluation);
  const double mean = state_.loss_sum / static_cast<double>(std::max<Index>(1, state_.loss_count));
  state_.loss_sum = 0;
  state_.loss_count = 0;
  return mean;
}

}  // namespace tilegrad::train
