#pragma once

#include <algorithm>
#include <string>

#include "tilegrad/train/run/run_config.h"

namespace tilegrad::train {

/// The settings that solve a task in under two minutes on two cores: the defaults of --task.
RunConfig task_preset(data::TaskKind kind);

/// The defaults of --text: the usual small setting for byte-level modelling on a CPU, which reaches a
/// validation loss below 1.88 on tiny Shakespeare.
RunConfig text_preset();

/// Gradient descent has no step of a length of its own, as Adam has; with momentum and clipping the tasks are
/// learned at this rate.
inline constexpr double kSgdLearningRate = 0.1;

/// Fills in what follows from other settings unless it was given: kv_heads from heads, context from the task,
/// learning rate, momentum and decay from the optimizer, min_lr from lr, the times of warm-up and evaluation from
/// steps, and the output folder.
/// `given(name)` tells whether a setting was.
template <class Given>
void derive_settings(RunConfig& c, Given&& given) {
  if (!given("kv-heads")) c.model.attention.kv_heads = c.model.attention.heads;
  if (!given("context") && !c.is_text()) c.model.context = c.task.context();
  const OptimizerKind optimizer = c.optimizer.kind;
  if (!given("lr") && optimizer == OptimizerKind::sgd) c.lr = kSgdLearningRate;
  if (!given("momentum")) c.optimizer.momentum = optimizer == OptimizerKind::sgd ? 0.9 : 0.0;
  if (!given("weight-decay") && optimizer == OptimizerKind::adam) c.optimizer.weight_decay = 0;
  if (!given("min-lr")) c.min_lr = c.lr / 10;
  if (!given("warmup")) c.warmup = std::min(c.warmup, c.steps / 10);
  if (!given("eval-every")) c.eval_every = std::max<Index>(1, std::min(c.eval_every, c.steps / 10));
  if (!given("out")) c.out = "runs/" + std::string(c.data_name());
}

}  // namespace tilegrad::train
