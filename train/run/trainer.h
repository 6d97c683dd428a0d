#pragma once

#include <functional>
#include <memory>

#include "tilegrad/base/memory.h"
#include "tilegrad/data/batch.h"
#include "tilegrad/nn/optimizer.h"
#include "tilegrad/nn/transformer.h"
#include "tilegrad/train/measure/profiler.h"
#include "tilegrad/train/run/evaluation.h"
#include "tilegrad/train/run/run_config.h"
#include "tilegrad/train/run/stop_rule.h"

namespace tilegrad::train {

/// What one training step did.
struct StepReport {
  Index step = 0;  ///< steps done, so the first one is 1
  double loss = 0;
  double lr = 0;
  double grad_norm = 0;  ///< before clipping
  double ms = 0;
  double tokens_per_s = 0;
  Index live_bytes = 0;          ///< after backward: parameters, gradients and optimiser state
  Index peak_bytes = 0;          ///< the most that were live during the step
  memory::ByCategory at_peak{};  ///< what they were used for
};

/// Where a run stands, besides its weights and the optimiser's state. The random numbers of a step come
/// from the seed and the step alone, so there is no generator to save.
struct TrainState {
  Index step = 0;
  double loss_sum = 0;   ///< of the steps since the last evaluation
  Index loss_count = 0;  ///< their number
  EvaluationHistory evaluations = {};
};

/// A model with its data and optimiser, one step at a time. What happens depends on the config and the number
/// of steps done alone.
class Trainer {
 public:
  /// Builds everything. Throws if a setting makes no sense or the model does not fit into memory.
  explicit Trainer(const RunConfig& config);
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  /// One step; `profiler`, if there is one, records its time and memory under the number of the step.
  StepReport step(Profiler* profiler = nullptr);

  /// evaluate() (evaluation.h) on the held-out data of the run.
  Evaluation evaluate(Index examples = 0, const std::function<bool()>& stop = nullptr) const;

  /// Takes an evaluation into the state. Returns the mean loss of the steps since the last one: the progress on
  /// training data.
  double record(const Evaluation& evaluation);

  const RunConfig& config() const { return config_; }
  nn::Transformer& model() { return model_; }
  nn::Optimizer& optimizer() { return *optimizer_; }
  const TrainState& state() const { return state_; }
  /// Continues from there; loading weights and moments is up to the caller.
  void set_state(const TrainState& state);

 private:
  void plan_for_budget(Index bytes);
  double loss_with_gradients(const data::Batch& batch, RandomKey key, double share);

  RunConfig config_;
  std::unique_ptr<data::Dataset> data_;
  nn::Transformer model_;
  std::unique_ptr<nn::Optimizer> optimizer_;
  TrainState state_;
};

}  // namespace tilegrad::train
