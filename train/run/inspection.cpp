#include "tilegrad/train/run/inspection.h"

#include <cmath>

#include "tilegrad/autograd/tape.h"

namespace tilegrad::train {

namespace {

// s + 1 of HeadScores for each t, or −1 if there is none.
std::vector<Index> places_of_induction(std::span<const std::int32_t> tokens) {
  std::vector<Index> places(tokens.size(), -1);
  for (Index t = 0; t < std::ssize(tokens); ++t) {
    Index s = t - 2;
    while (s >= 0 && tokens[s] != tokens[t]) --s;
    if (s >= 0) places[t] = s + 1;
  }
  return places;
}

}  // namespace

Inspection inspect(const nn::Transformer& model, const Tensor& tokens) {
  const Tape::Pause no_gradients;
  Inspection result;
  Var x = model.embed(tokens, {});
  result.lens.push_back(model.logits(x).value());
  for (Index layer = 0; layer < model.config.layers; ++layer) {
    const nn::Block& block = model.blocks[layer];
    result.attention.push_back(block.attention.probabilities(block.norm_attention(x)));
    x = model.run_block(x, layer, {});
    result.lens.push_back(model.logits(x).value());
  }
  return result;
}

Tensor sink_shares(const nn::Attention& layer, const AttentionProbabilities& attention) {
  if (!layer.sinks.defined()) return {};
  const Tensor& lse = attention.lse;
  const Index heads = lse.dim(1), time = lse.dim(2);
  Tensor shares = Tensor::empty(lse.shape(), Dtype::f64);
  const auto out = shares.mut<double>();
  for (Index i = 0; i < lse.size(); ++i) {
    out[i] = std::exp(layer.sinks.value().at(i / time % heads) - lse.at(i));
  }
  return shares;
}

// Means over the rows of one head.
class HeadScorer::HeadSums {
 public:
  // Query t of a sequence; `row` is p(t, 0), p(t, 1), ..., and `place` where an induction head looks, or −1.
  void add(const Tensor& p, Index row, Index t, Index place, bool asked) {
    self_.add(p.at(row + t));
    first_.add(p.at(row));
    if (t > 0) previous_.add(p.at(row + t - 1));
    if (place < 0) return;
    induction_.add(p.at(row + place));
    if (asked) answers_.add(p.at(row + place));
  }
  void add_sink(double share) { sink_.add(share); }

  HeadScores scores(Index layer, Index head, Index kv_head) const {
    return {.layer = layer,
            .head = head,
            .kv_head = kv_head,
            .induction = induction_.value(),
            .induction_at_answers = answers_.value(),
            .self = self_.value().value_or(0),
            .first = first_.value().value_or(0),
            .previous = previous_.value(),
            .sink = sink_.value()};
  }

 private:
  struct Mean {
    double sum = 0;
    Index count = 0;

    void add(double value) {
      sum += value;
      ++count;
    }
    std::optional<double> value() const {
      return count == 0 ? std::nullopt : std::optional(sum / static_cast<double>(count));
    }
  };

  Mean induction_, answers_, self_, first_, previous_, sink_;
};

HeadScorer::HeadScorer(const nn::Transformer& model)
    : model_(model), sums_(model.config.layers * model.config.attention.heads) {}

HeadScorer::~HeadScorer() = default;

void HeadScorer::add(const Inspection& inspection, const data::Batch& batch) {
  const Index heads = model_.config.attention.heads, time = batch.time;
  for (Index layer = 0; layer < model_.config.layers; ++layer) {
    const AttentionProbabilities& attention = inspection.attention[layer];
    const Tensor sinks = sink_shares(model_.blocks[layer].attention, attention);
    for (Index b = 0; b < batch.batch; ++b) {
      const auto places = places_of_induction(std::span(batch.tokens).subspan(b * time, time));
      for (Index h = 0; h < heads; ++h) {
        HeadSums& sums = sums_[layer * heads + h];
        for (Index t = 0; t < time; ++t) {
          const Index row = (b * heads + h) * time + t;
          sums.add(attention.p, row * time, t, places[t], batch.targets[b * time + t] != data::kIgnored);
          if (sinks.defined()) sums.add_sink(sinks.at(row));
        }
      }
    }
  }
}

std::vector<HeadScores> HeadScorer::scores() const {
  const Index heads = model_.config.attention.heads, group = heads / model_.config.attention.kv_heads;
  std::vector<HeadScores> scores;
  for (Index i = 0; i < std::ssize(sums_); ++i) {
    scores.push_back(sums_[i].scores(i / heads, i % heads, i % heads / group));
  }
  return scores;
}

}  // namespace tilegrad::train
