#pragma once

// The end of exercise 9: a transformer of one block, built of the learner's ops, learns to sort.

#include <cmath>
#include <cstdio>
#include <vector>

#include "check.h"

namespace check {

/// Five digits of 0, 1, 2, then the same in order: each token of the answer is asked for where the one before it
/// is read.
struct SortExample {
  static constexpr int kDigits = 5, kSymbols = 3, kTokens = 2 * kDigits - 1;
  std::vector<int> tokens = {}, targets = std::vector<int>(kDigits - 1, -1), positions = {};

  explicit SortExample(Draw& draw) {
    for (int i = 0; i < kDigits; ++i) tokens.push_back(static_cast<int>(draw.uniform() * kSymbols));
    std::vector<int> sorted = tokens;
    std::sort(sorted.begin(), sorted.end());
    tokens.insert(tokens.end(), sorted.begin(), sorted.end() - 1);
    targets.insert(targets.end(), sorted.begin(), sorted.end());
    for (int i = 0; i < kTokens; ++i) positions.push_back(i);
  }
};

/// One block, C = 16: x += attention(x Wq, x Wk, x Wv) Wo, x += relu(x W1) W2, logits = x W.
template <class Ops>
class SortModel {
 public:
  static constexpr int kWidth = 16;

  SortModel(const Ops& ops, Draw& draw) : ops_(ops) {
    for (const auto& [rows, cols] : std::vector<std::pair<int, int>>{{SortExample::kSymbols, kWidth},
                                                                     {SortExample::kTokens, kWidth},
                                                                     {kWidth, kWidth},
                                                                     {kWidth, kWidth},
                                                                     {kWidth, kWidth},
                                                                     {kWidth, kWidth},
                                                                     {kWidth, 2 * kWidth},
                                                                     {2 * kWidth, kWidth},
                                                                     {kWidth, SortExample::kSymbols}}) {
      weights.push_back(make(rows, cols));
      for (double& w : weights.back()->values) w = 0.6 * (draw.uniform() - 0.5);
    }
  }

  Var operator()(Tape& tape, const SortExample& example) const {
    const auto times = [&](const Var& x, int w) {
      return ops_.matmul(tape, x, weights[static_cast<std::size_t>(w)]);
    };
    Var x = ops_.add(tape, ops_.embed(tape, weights[0], example.tokens),
                     ops_.embed(tape, weights[1], example.positions));
    x = ops_.add(tape, x, times(ops_.attention(tape, times(x, 2), times(x, 3), times(x, 4)), 5));
    x = ops_.add(tape, x, times(ops_.relu(tape, times(x, 6)), 7));
    return times(x, 8);
  }

  std::vector<Var> weights;

 private:
  Ops ops_;
};

/// Adam (Kingma and Ba, 2015), for the sum of the gradients of a batch.
class Adam {
 public:
  explicit Adam(const std::vector<Var>& weights) : weights_(weights) {
    for (const Var& w : weights) moments_.push_back({Values(w->values.size()), Values(w->values.size())});
  }

  void step(int number, int batch) {
    constexpr double kRate = 0.01, kDecay1 = 0.9, kDecay2 = 0.99;
    for (std::size_t w = 0; w < weights_.size(); ++w) {
      for (std::size_t e = 0; e < weights_[w]->values.size(); ++e) {
        double& grad = weights_[w]->grads[e];
        double &m = moments_[w].first[e], &v = moments_[w].second[e];
        m = kDecay1 * m + (1 - kDecay1) * grad / batch;
        v = kDecay2 * v + (1 - kDecay2) * grad * grad / batch / batch;
        weights_[w]->values[e] -= kRate * (m / (1 - std::pow(kDecay1, number))) /
                                  (std::sqrt(v / (1 - std::pow(kDecay2, number))) + 1e-8);
        grad = 0;
      }
    }
  }

 private:
  std::vector<Var> weights_;
  std::vector<std::pair<Values, Values>> moments_;
};

/// How many of the answers to fresh examples are right, token by token.
template <class Ops>
double accuracy_of(const SortModel<Ops>& model, Draw& draw) {
  int right = 0, asked = 0;
  for (int n = 0; n < 200; ++n) {
    const SortExample example(draw);
    Tape tape;
    const Var logits = model(tape, example);
    for (int i = 0; i < SortExample::kTokens; ++i) {
      if (example.targets[static_cast<std::size_t>(i)] < 0) continue;
      int best = 0;
      for (int j = 1; j < logits->cols; ++j) {
        if (logits->value()(i, j) > logits->value()(i, best)) best = j;
      }
      right += best == example.targets[static_cast<std::size_t>(i)];
      ++asked;
    }
  }
  return static_cast<double>(right) / asked;
}

/// Trains, prints the loss on the way, and says whether at least 95 % of the answers are right in the end.
template <class Ops>
bool train_to_sort(const Ops& ops) {
  constexpr int kSteps = 200, kBatch = 16;
  Draw draw(1);
  const SortModel<Ops> model(ops, draw);
  Adam adam(model.weights);
  for (int step = 1; step <= kSteps; ++step) {
    double loss = 0;
    for (int n = 0; n < kBatch; ++n) {
      const SortExample example(draw);
      Tape tape;
      const Var of_example = ops.cross_entropy(tape, model(tape, example), example.targets);
      loss += of_example->values[0] / kBatch;
      ops.backward(tape, of_example);
    }
    adam.step(step, kBatch);
    if (step == 1 || step % 50 == 0) std::printf("  step %3d: loss %.4f\n", step, loss);
  }
  const double accuracy = accuracy_of(model, draw);
  std::printf("  it sorts: %.1f %% of the digits of fresh examples are right\n", 100 * accuracy);
  return accuracy >= 0.95;
}

}  // namespace check
