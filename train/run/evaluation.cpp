#include "tilegrad/train/run/evaluation.h"

#include <algorithm>
#include <numbers>

#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad::train {

namespace {

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

double bits_of(double nats) { return nats / std::numbers::ln2; }

Tensor tokens_of(const data::Batch& batch) {
  return Tensor::from<std::int32_t>({batch.batch, batch.time}, batch.tokens);
}

Tensor targets_of(const data::Batch& batch) {
  static_assert(data::kIgnored == tilegrad::kIgnored);
  return Tensor::from<std::int32_t>({batch.batch, batch.time}, batch.targets);
}

Evaluation evaluate(const nn::Transformer& model, const data::Dataset& data, Index examples,
                    const std::function<bool()>& stop) {
  constexpr Index kBatch = 64;
  const Tape::Pause no_gradients;
  const Index all = data.validation_batches(kBatch);
  const Index batches = examples == 0 ? all : std::min(all, (examples + kBatch - 1) / kBatch);
  Score score;
  Index i = 0;
  for (; i < batches && !(stop && stop()); ++i) {
    const data::Batch batch = data.validation(i, kBatch);
    const Var logits = model(tokens_of(batch), {.training = false, .key = {}});
    score.add(batch, cross_entropy(logits, targets_of(batch)).value().item(), argmax(logits));
  }
  return {.loss = score.loss_sum / static_cast<double>(score.asked),
          .accuracy = static_cast<double>(score.right) / static_cast<double>(score.asked),
          .exact = static_cast<double>(score.exact) / static_cast<double>(score.sequences),
          .whole = i == all};
}

}  // namespace tilegrad::train
