#include "tilegrad/train/labs/checkpoint_measure.h"

#include "tilegrad/autograd/tape.h"
#include "tilegrad/base/hash.h"
#include "tilegrad/base/memory.h"
#include "tilegrad/train/measure/random_tokens.h"
#include "tilegrad/train/measure/system.h"
#include "tilegrad/train/run/stage_costs.h"

namespace tilegrad::train {

namespace {

// What both measurements work on. Members are made in this order.
struct Bench {
  explicit Bench(const CheckpointTask& task)
      : key{task.seed},
        model(task.model(), key.fold(0)),
        tokens(random_tokens(task.batch, task.seq, key.fold(1))),
        targets(random_tokens(task.batch, task.seq, key.fold(2))) {}

  nn::ForwardOptions mode() const { return {.training = true, .key = key.fold(3)}; }

  // Loss and gradients of one step; the gradients are left in the model.
  double step() {
    nn::zero_grad(nn::parameters(model));
    Tape tape;
    const Var loss = model.loss(tokens, targets, mode());
    tape.backward(loss);
    return loss.value().item();
  }

  RandomKey key;
  nn::Transformer model;
  Tensor tokens, targets;
};

std::uint64_t hash_of_gradients(nn::Transformer& model) {
  std::uint64_t hash = fnv1a("");
  for (const nn::NamedParameter& p : nn::parameters(model)) {
    const auto grad = p.parameter->grad().view<float>();
    hash = fnv1a({reinterpret_cast<const char*>(grad.data()), grad.size_bytes()}, hash);
  }
  return hash;
}

}  // namespace

nn::TransformerConfig CheckpointTask::model() const {
  return {.vocabulary = kVocabulary,
          .context = seq,
          .layers = layers,
          .width = width,
          .attention = {.heads = heads, .kv_heads = heads},
          .recompute = recompute};
}

ChainCost measure_chain(const CheckpointTask& task) {
  Bench bench(task);
  return measure_stages(bench.model, bench.tokens, bench.targets, bench.mode());
}

StepCosts measure_schedule(const CheckpointTask& task, const CallTimer& timer) {
  Bench bench(task);
  bench.model.schedule = task.schedule;
  bench.step();  // makes the scratch memory that threads keep
  nn::zero_grad(nn::parameters(bench.model));
  memory::reset_peak();
  StepCosts costs = {.loss = bench.step()};
  costs.peak = memory::usage().peak;
  costs.gradients = hash_of_gradients(bench.model);
  const Index faults = page_faults();
  costs.step_ms = timer.time("step", [&] { bench.step(); });
  costs.page_faults = static_cast<double>(page_faults() - faults) / static_cast<double>(costs.step_ms.size());
  return costs;
}

}  // namespace tilegrad::train
