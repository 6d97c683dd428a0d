#pragma once

#include <optional>
#include <vector>

#include "tilegrad/data/batch.h"
#include "tilegrad/nn/transformer.h"

/// What happens inside of a model while it reads.
namespace tilegrad::train {

/// Attention and predictions of every layer, for B sequences of T tokens.
struct Inspection {
  /// p (B, Hq, T, T) and lse (B, Hq, T), a layer each.
  std::vector<AttentionProbabilities> attention = {};
  /// The residual stream x (B, T, C) before the first block and after each, read by the model's last norm and head:
  /// logits (B, T, V). The last are the model's own, to the bit. ("The logit lens", nostalgebraist, 2020.)
  std::vector<Tensor> lens = {};
};

/// Runs the model without dropout and records nothing. The probabilities are computed from the q and k of each layer by
/// the naive kernel, whatever kernel the model uses. tokens i32 (B, T).
Inspection inspect(const nn::Transformer& model, const Tensor& tokens);

/// The share of each row that a head's sink takes, exp(sink_h − lse): f64 (B, Hq, T); undefined if the layer has no sinks.
Tensor sink_shares(const nn::Attention& layer, const AttentionProbabilities& attention);

/// Where a head looks: means of probabilities p(t, s), which query t gives to key s, over sequences and queries.
struct HeadScores {
  Index layer = 0, head = 0, kv_head = 0;  ///< from 0 on
  /// p(t, s + 1), where s ≤ t − 2 is the last position, at least two back, with the same token as t: how much the head
  /// attends to what followed its token the last time. Over all t that have such an s; nothing if none has. (C. Olsson
  /// et al., "In-context Learning and Induction Heads", 2022, call it prefix matching.)
  std::optional<double> induction = {};
  /// The same, over those of these t alone at which an answer is asked for.
  std::optional<double> induction_at_answers = {};
  double self = 0;                      ///< p(t, t)
  double first = 0;                     ///< p(t, 0)
  std::optional<double> previous = {};  ///< p(t, t − 1), t ≥ 1
  std::optional<double> sink = {};      ///< what the sink takes
};

/// Gathers them over any number of sequences.
class HeadScorer {
 public:
  explicit HeadScorer(const nn::Transformer& model);
  ~HeadScorer();
  HeadScorer(const HeadScorer&) = delete;
  HeadScorer& operator=(const HeadScorer&) = delete;

  /// The batch is what was inspected.
  void add(const Inspection& inspection, const data::Batch& batch);
  /// Of every head, layer by layer.
  std::vector<HeadScores> scores() const;

 private:
  class HeadSums;
  const nn::Transformer& model_;
  std::vector<HeadSums> sums_;
};

}  // namespace tilegrad::train
