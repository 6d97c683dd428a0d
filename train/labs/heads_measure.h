#pragma once

#include <vector>

#include "tilegrad/nn/transformer.h"
#include "tilegrad/train/labs/child.h"

/// The measurements of `tilegrad lab heads`, each made in a child.
namespace tilegrad::train {

/// One kind of attention: MHA, GQA or MQA, by the number of its key/value heads.
struct HeadsTask {
  Index seq = 1, head_size = 1, heads = 1, kv_heads = 1, layers = 1;
  Index tokens = 1;  ///< to decode
  Index steps = 1;   ///< of training on recall
  std::uint64_t seed = 1;

  /// The model that is trained and decodes, with random weights.
  nn::TransformerConfig model() const;
};

/// A training step of the model.
struct TrainingCosts {
  Index peak = 0, peak_rss = 0;  ///< bytes
  std::vector<double> step_ms = {};
};
TrainingCosts measure_training(const HeadsTask& task, const CallTimer& timer);

/// Decoding, token by token; the first one, which includes the whole prompt, is left out.
struct DecodingCosts {
  Index peak = 0, peak_rss = 0;  ///< bytes
  std::vector<double> token_ms = {};
};
DecodingCosts measure_decoding(const HeadsTask& task, const CallTimer& timer);

/// How far attention with shared heads is from MHA whose keys and values are the shared ones, repeated.
struct Sharing {
  double difference = 0;
};
Sharing measure_sharing(const HeadsTask& task);

/// What the model learns of recall.
struct Learning {
  double loss = 0, accuracy = 0, exact = 0;
  double step_seconds = 0, evaluation_seconds = 0;  ///< of one, in the mean
  std::vector<Index> steps = {};                    ///< of the curve
  std::vector<double> accuracies = {};              ///< after these steps
};
Learning measure_learning(const HeadsTask& task);
/// The steps of the curve of a training: at equal distances, at most 50, and at last the last one.
std::vector<Index> steps_of_curve(Index steps);
/// The first step of the curve with at least this accuracy; 0 if there is none.
Index steps_to(const Learning& learning, double accuracy);
/// 90 %, or of 80, 70 ... 10 % the highest that every training reaches; 0 if there is none. A mean of steps to it is over
/// all of them, and not over those that happened to learn.
double common_threshold(const std::vector<Learning>& learnings);

/// Losses of a trained MHA, of the same with its heads pooled to kv_heads, and after 1, 5 and 10 % more steps.
struct Conversion {
  std::vector<double> losses = {};
};
Conversion measure_conversion(const HeadsTask& task);

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(HeadsTask, seq, head_size, heads, kv_heads, layers, tokens, steps, seed)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(TrainingCosts, peak, peak_rss, step_ms)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(DecodingCosts, peak, peak_rss, token_ms)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Sharing, difference)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Learning, loss, accuracy, exact, step_seconds, evaluation_seconds, steps,
                                   accuracies)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Conversion, losses)

}  // namespace tilegrad::train
