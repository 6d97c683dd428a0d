#include "tilegrad/nn/transformer.h"

#include <cmath>
#include <limits>

#include "tilegrad/autograd/checkpoint.h"
#include "tilegrad/base/format.h"

namespace tilegrad::nn {

namespace {

// Where a random key is used; each place folds a number of its own into the key that it is handed.
enum Place : std::uint64_t { kTokens = 0, kPositions = 1, kHead = 2, kBlocks = 3 };
enum BlockPlace : std::uint64_t { kAttention = 0, kMlp = 1, kAfterAttention = 2, kAfterMlp = 3 };

double residual_std(const TransformerConfig& c) {
  return c.init.scale_residual ? c.init.linear / std::sqrt(2.0 * static_cast<double>(c.layers))
                               : c.init.linear;
}

Index multiply(Index a, Index b) {
  Index product = 0;
  check(!__builtin_mul_overflow(a, b, &product), "transformer: the model is too large: {} times {} overflows",
        a, b);
  return product;
}

Index add_all(std::initializer_list<Index> terms) {
  Index total = 0;
  for (const Index term : terms) {
    check(!__builtin_add_overflow(total, term, &total),
          "transformer: the model is too large: {} more overflow", term);
  }
  return total;
}

// Positions `first` ... `first + time − 1`, the same for every sequence of the batch: i32 (B, T).
Tensor position_ids(Index batch, Index time, Index first) {
  Tensor ids = Tensor::empty({batch, time}, Dtype::i32);
  auto out = ids.mut<std::int32_t>();
  for (Index i = 0; i < batch * time; ++i) {
    out[i] = static_cast<std::int32_t>(first + i % time);
  }
  return ids;
}

Var maybe_dropout(const Var& x, double p, const ForwardOptions& forward) {
  return forward.training ? dropout(x, p, forward.key) : x;
}

}  // namespace

void TransformerConfig::validate() const {
  // Tokens and positions are 32-bit.
  static constexpr Index kLargest = std::numeric_limits<std::int32_t>::max();
  const auto positive = [](std::string_view what, Index value) {
    check(value >= 1, "transformer: {} is {}, must be at least 1", what, value);
    check(value <= kLargest, "transformer: {} is {}, must be at most {}", what, value, kLargest);
  };
  positive("vocabulary", vocabulary);
  positive("context", context);
  positive("layers", layers);
  positive("width", width);
  check(hidden >= 0, "transformer: hidden is {}, must not be negative", hidden);
  check(hidden <= kLargest, "transformer: hidden is {}, must be at most {}", hidden, kLargest);
  attention.validate(width);
  check(dtype == Dtype::f32 || dtype == Dtype::f64, "transformer: parameters are {}, must be f32 or f64",
        dtype);
  check(dropout >= 0 && dropout < 1, "transformer: dropout is {}, not in [0, 1)", dropout);
}

Index TransformerConfig::hidden_size() const {
  if (hidden > 0) return hidden;
  if (mlp != MlpKind::swiglu) return multiply(4, width);
  return (multiply(8, width) / 3 + 7) / 8 * 8;
}

Index TransformerConfig::parameter_count() const {
  validate();
  const Index f = hidden_size(), kv_width = head_size() * attention.kv_heads;
  const Index norm_size = norm == NormKind::layernorm ? multiply(2, width) : width;
  const Index mlp_matrices = mlp == MlpKind::swiglu ? 3 : 2;
  const Index attention_biases = bias ? add_all({width, kv_width, kv_width, width}) : 0;
  const Index mlp_biases = bias ? add_all({multiply(mlp_matrices - 1, f), width}) : 0;
  const Index block =
      add_all({multiply(2, multiply(width, width)), multiply(2, multiply(width, kv_width)), attention_biases,
               attention.sinks ? attention.heads : 0, multiply(mlp_matrices, multiply(width, f)), mlp_biases,
               multiply(2, norm_size)});
  return add_all({multiply(vocabulary, width),
                  attention.positions == PositionEncoding::learned ? multiply(context, width) : 0,
                  multiply(layers, block), norm_size, tie ? 0 : multiply(vocabulary, width)});
}

Index TransformerConfig::kv_bytes_per_token() const {
  validate();
  return multiply(multiply(2 * layers, attention.kv_heads * head_size()), bytes_of(dtype));
}

Block::Block(const TransformerConfig& c, RandomKey key)
    : dropout(c.dropout),
      recompute(c.recompute),
      norm_attention(c.norm, c.width, c.dtype),
      attention(c.attention, c.width, c.bias, c.dropout, c.init.linear, residual_std(c), c.dtype,
                key.fold(kAttention)),
      norm_mlp(c.norm, c.width, c.dtype),
      mlp(c.mlp, c.width, c.hidden_size(), c.bias, c.init.linear, residual_std(c), c.dtype, key.fold(kMlp)) {}

SavePolicy Block::save_policy_of_cheap_steps() const {
  return recompute == Recompute::elementwise ? SavePolicy::inputs : SavePolicy::output;
}

Var Block::attention_half(const Var& x, const ForwardOptions& forward) const {
  const Var attended = attention(norm_attention(x, save_policy_of_cheap_steps()), forward.fold(kAttention));
  return add(x, maybe_dropout(attended, dropout, forward.fold(kAfterAttention)));
}

Var Block::mlp_half(const Var& h, const ForwardOptions& forward) const {
  const SavePolicy save = save_policy_of_cheap_steps();
  return add(h, maybe_dropout(mlp(norm_mlp(h, save), save), dropout, forward.fold(kAfterMlp)));
}

// A half is checkpointed with its residual sum, so that the gradients of both paths add up in the usual order.
Var Block::operator()(const Var& x, const ForwardOptions& forward) const {
  const auto first = [this, forward](const Var& in) { return attention_half(in, forward); };
  const auto second = [this, forward](const Var& in) { return mlp_half(in, forward); };
  const Var h = recompute == Recompute::attention ? checkpoint(first, x) : first(x);
  return recompute == Recompute::mlp ? checkpoint(second, h) : second(h);
}

Var Block::operator()(const Var& x, KvCache& cache) const {
  const Var h = add(x, attention(norm_attention(x), cache));
  return add(h, mlp(norm_mlp(h)));
}

Transformer::Transformer(const TransformerConfig& c, RandomKey key) : config(c) {
  c.validate();
  const Index bytes = multiply(c.parameter_count(), bytes_of(c.dtype));
  check(bytes <= memory::limit(), "transformer: {} of parameters do not fit into {}", format_bytes(bytes),
        format_bytes(memory::limit()));
  token_embedding = Embedding(c.vocabulary, c.width, c.init.embedding, c.dtype, key.fold(kTokens));
  if (c.attention.positions == PositionEncoding::learned) {
    position_embedding = Embedding(c.context, c.width, c.init.embedding, c.dtype, key.fold(kPositions));
  }
  for (Index layer = 0; layer < c.layers; ++layer) {
    blocks.emplace_back(c, key.fold(kBlocks).fold(static_cast<std::uint64_t>(layer)));
  }
  norm = Norm(c.norm, c.width, c.dtype);
  if (!c.tie) head = Linear(c.width, c.vocabulary, false, c.init.linear, c.dtype, key.fold(kHead));
}

Var Transformer::embed_at(const Tensor& tokens, Index first) const {
  check(tokens.rank() == 2, "transformer: tokens are {}, not (B, T)", tokens.shape());
  check(first + tokens.dim(1) <= config.context, "transformer: {} tokens do not fit into a context of {}",
        first + tokens.dim(1), config.context);
  const Var x = token_embedding(tokens);
  if (config.attention.positions != PositionEncoding::learned) return x;
  return add(x, position_embedding(position_ids(tokens.dim(0), tokens.dim(1), first)));
}

const Parameter& Transformer::head_weight() const {
  return config.tie ? token_embedding.weight : head.weight;
}

Var Transformer::logits(const Var& x) const { return linear(norm(x), head_weight()); }

Var Transformer::head_loss(const Var& x, const Tensor& targets) const {
  return linear_cross_entropy(norm(x), head_weight(), targets);
}

Var Transformer::embed(const Tensor& tokens, const ForwardOptions& forward) const {
  return maybe_dropout(embed_at(tokens, 0), config.dropout, forward.fold(kTokens));
}

Var Transformer::run_block(const Var& x, Index layer, const ForwardOptions& forward) const {
  return blocks[layer](x, forward.fold(kBlocks).fold(static_cast<std::uint64_t>(layer)));
}

Var Transformer::run_blocks(Var x, Index begin, Index end, const Schedule& segments,
                            const ForwardOptions& forward) const {
  auto segment = segments.begin();
  for (Index layer = begin; layer < end;) {
    if (segment == segments.end() || layer < segment->begin) {
      x = run_block(x, layer++, forward);
      continue;
    }
    const auto run_part = [this, part = *segment, training = forward.training](const Var& in, RandomKey key) {
      return run_blocks(in, part.begin, part.end, part.inside, {.training = training, .key = key});
    };
    x = config.checkpoint_with
            ? config.checkpoint_with(run_part, x, forward.key)
            : checkpoint([run_part, key = forward.key](const Var& in) { return run_part(in, key); }, x);
    layer = (segment++)->end;
  }
  return x;
}

Var Transformer::run_all_blocks(const Tensor& tokens, const ForwardOptions& forward) const {
  return run_blocks(embed(tokens, forward), 0, config.layers, schedule, forward);
}

Var Transformer::operator()(const Tensor& tokens, const ForwardOptions& forward) const {
  return logits(run_all_blocks(tokens, forward));
}

Var Transformer::loss(const Tensor& tokens, const Tensor& targets, const ForwardOptions& forward) const {
  return head_loss(run_all_blocks(tokens, forward), targets);
}

std::vector<KvCache> Transformer::make_caches() const {
  std::vector<KvCache> caches;
  for (Index layer = 0; layer < config.layers; ++layer) {
    caches.emplace_back(config.context, config.attention.kv_heads, config.head_size(), config.dtype);
  }
  return caches;
}

Var Transformer::operator()(const Tensor& tokens, std::vector<KvCache>& caches) const {
  check(std::ssize(caches) == config.layers, "transformer: {} caches for {} layers", caches.size(),
        config.layers);
  Var x = embed_at(tokens, caches[0].length);
  for (std::size_t layer = 0; layer < blocks.size(); ++layer) x = blocks[layer](x, caches[layer]);
  return logits(x);
}

}  // namespace tilegrad::nn
