#pragma once

#include <vector>

#include "tilegrad/autograd/checkpoint_plan.h"
#include "tilegrad/nn/attention.h"
#include "tilegrad/nn/layers.h"

namespace tilegrad::nn {

/// What every block recomputes in its backward instead of keeping it.
///   attention    its first half: norm, projections, attention
///   mlp          its second half: norm, products, activation
///   elementwise  norms and the mlp's activation: as large as the products around them, and much cheaper
enum class Recompute { nothing, attention, mlp, elementwise };

/// A part of the model, whose dropout the key decides: (B, T, C) -> (B, T, C).
using KeyedFunction = std::function<Var(const Var& x, RandomKey key)>;
/// A checkpoint by code from outside the library: computes fn(x, key) and keeps little of it.
using CheckpointOp = std::function<Var(KeyedFunction fn, const Var& x, RandomKey key)>;

struct TransformerConfig {
  Index vocabulary = 0;  // V
  Index context = 0;     // longest T
  Index layers = 0;      // L
  Index width = 0;       // C
  AttentionConfig attention = {};
  Index hidden = 0;  // F; 0: 4 C, or 8 C / 3 rounded up to a multiple of 8 for swiglu
  MlpKind mlp = MlpKind::gelu;
  NormKind norm = NormKind::layernorm;
  bool bias = false;   ///< of the linear layers
  bool tie = true;     ///< the head uses the token embedding's matrix
  double dropout = 0;  ///< of embeddings, attention probabilities, and what each half of a block adds
  Recompute recompute = Recompute::nothing;
  CheckpointOp checkpoint_with = {};  ///< in place of checkpoint(), for blocks that are checkpointed together
  Init init = {};
  Dtype dtype = Dtype::f32;

  /// Throws Error with one line on the first setting that makes no sense.
  void validate() const;
  Index head_size() const { return width / attention.heads; }  // D
  /// `hidden` with its default filled in.
  Index hidden_size() const;
  /// Number of parameter elements, without building the model. Throws if it overflows or validate() does.
  Index parameter_count() const;
  /// Bytes of keys and values that decoding keeps for one token, over all layers.
  Index kv_bytes_per_token() const;
};

/// x + attention(norm(x)), then x + mlp(norm(x)): the pre-norm block.
struct Block {
  double dropout = 0;
  Recompute recompute = Recompute::nothing;
  Norm norm_attention;
  Attention attention;
  Norm norm_mlp;
  Mlp mlp;

  Block() = default;
  Block(const TransformerConfig& config, RandomKey key);
  Var operator()(const Var& x, const ForwardOptions& forward) const;  // (B, T, C) -> (B, T, C)
  Var operator()(const Var& x, KvCache& cache) const;                 // (1, T, C) -> (1, T, C)
  void visit(auto&& f) {
    f("norm_attention", norm_attention);
    f("attention", attention);
    f("norm_mlp", norm_mlp);
    f("mlp", mlp);
  }

 private:
  // x + attention(norm(x)) and h + mlp(norm(h)), (B, T, C) -> (B, T, C)
  Var attention_half(const Var& x, const ForwardOptions& forward) const;
  Var mlp_half(const Var& h, const ForwardOptions& forward) const;
  SavePolicy save_policy_of_cheap_steps() const;
};

/// A decoder-only transformer. Weights depend on config and key alone; every parameter has a key of its own,
/// folded from its place, so that MHA, GQA and MQA models with the same key agree in everything they share.
struct Transformer {
  TransformerConfig config;
  Embedding token_embedding;     // (V, C)
  Embedding position_embedding;  // (context, C), learned positions only
  std::vector<Block> blocks;
  Norm norm;
  Linear head;        // (V, C), undefined if tied
  Schedule schedule;  ///< which blocks are checkpointed together; none at first

  Transformer(const TransformerConfig& config, RandomKey key);
  /// tokens i32 (B, T), T ≤ context -> logits (B, T, V).
  Var operator()(const Tensor& tokens, const ForwardOptions& forward) const;

  /// The parts that make up the whole: logits(block L − 1 (... block 0 (embed(tokens)))).
  Var embed(const Tensor& tokens, const ForwardOptions& forward) const;           // (B, T) -> (B, T, C)
  Var run_block(const Var& x, Index layer, const ForwardOptions& forward) const;  // (B, T, C) -> (B, T, C)
  Var logits(const Var& x) const;                                                 // (B, T, C) -> (B, T, V)

  /// cross_entropy((*this)(tokens, forward), targets) for training, by linear_cross_entropy: all logits are never alive
  /// at once. tokens and targets i32 (B, T) -> scalar ().
  Var loss(const Tensor& tokens, const Tensor& targets, const ForwardOptions& forward) const;
  /// Its last part: cross_entropy(logits(x), targets), x (B, T, C).
  Var head_loss(const Var& x, const Tensor& targets) const;

  /// One cache per layer, for decoding one sequence of at most `context` tokens.
  std::vector<KvCache> make_caches() const;
  /// The next T tokens (1, T) of one sequence -> logits (1, T, V); fills the caches.
  Var operator()(const Tensor& tokens, std::vector<KvCache>& caches) const;

  void visit(auto&& f) {
    f("tokens", token_embedding);
    f("positions", position_embedding);
    f("blocks", blocks);
    f("norm", norm);
    f("head", head);
  }

 private:
  Var embed_at(const Tensor& tokens, Index first_position) const;  // (B, T) -> (B, T, C)
  // Blocks [begin, end) with these segments checkpointed. (B, T, C) -> (B, T, C)
  Var run_blocks(Var x, Index begin, Index end, const Schedule& segments,
                 const ForwardOptions& forward) const;
  Var run_all_blocks(const Tensor& tokens, const ForwardOptions& forward) const;  // (B, T) -> (B, T, C)
  const Parameter& head_weight() const;                                           // (V, C)
};

}  // namespace tilegrad::nn
