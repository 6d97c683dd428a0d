#include "tilegrad/nn/attention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "tilegrad/autograd/tape.h"

namespace tilegrad::nn {

namespace {

// (B, T, H D) -> (B, T, H, D)
Var split_heads(const Var& x, Index heads) {
  return reshape(x, {x.dim(0), x.dim(1), heads, x.dim(2) / heads});
}
// (B, T, H, D) -> (B, T, H D)
Var join_heads(const Var& x) { return reshape(x, {x.dim(0), x.dim(1), x.dim(2) * x.dim(3)}); }

// Writes the T entries of one sequence, (1, T, Hkv, D), after the cache's first `length`.
void append(Tensor& cache, Index length, const Tensor& entries) {
  const Index row = cache.dim(1) * cache.dim(2);
  with_float_type("KvCache", cache.dtype(), [&]<class T>() {
    const auto from = entries.view<T>();
    std::copy(from.begin(), from.end(), cache.mut<T>().begin() + length * row);
  });
}

// The first `length` entries as a sequence of its own, (1, length, Hkv, D), without a copy.
Tensor filled(const Tensor& cache, Index length) {
  return cache.prefix(length).reshape({1, length, cache.dim(1), cache.dim(2)});
}

}  // namespace

Tensor alibi_slopes(Index heads, Dtype dtype) {
  const auto power = static_cast<Index>(std::bit_floor(static_cast<std::uint64_t>(heads)));
  // The slope of head h = number − 1 of `of` heads, `of` being a power of two.
  const auto slope = [](Index number, Index of) {
    return std::exp2(-8.0 * static_cast<double>(number) / static_cast<double>(of));
  };
  Tensor slopes = Tensor::empty({heads}, dtype);
  with_float_type("alibi", dtype, [&]<class T>() {
    const auto out = slopes.mut<T>();
    for (Index h = 0; h < heads; ++h) {
      out[h] = static_cast<T>(h < power ? slope(h + 1, power) : slope(2 * (h - power) + 1, 2 * power));
    }
  });
  return slopes;
}

KvCache::KvCache(Index context, Index kv_heads, Index head_size, Dtype dtype)
    : keys(Tensor::empty({context, kv_heads, head_size}, dtype)),
      values(Tensor::empty({context, kv_heads, head_size}, dtype)) {}

void AttentionConfig::validate(Index width) const {
  check(heads >= 1, "attention: heads is {}, must be at least 1", heads);
  check(kv_heads >= 1, "attention: kv_heads is {}, must be at least 1", kv_heads);
  check(width % heads == 0, "attention: heads {} does not divide width {}", heads, width);
  check(heads % kv_heads == 0, "attention: kv_heads {} does not divide heads {}", kv_heads, heads);
  check(positions != PositionEncoding::rope || width / heads % 2 == 0,
        "attention: rotary positions need an even head size, {} / {} is {}", width, heads, width / heads);
  static constexpr Index kLargestWindow = std::numeric_limits<std::int32_t>::max();  // as token positions
  const Index left = window.value_or(0);
  check(left >= 0, "attention: window is {}, must not be negative", left);
  check(left <= kLargestWindow, "attention: window is {}, must be at most {}", left, kLargestWindow);
  const double cap = softcap.value_or(1);
  check(std::isfinite(cap) && cap > 0, "attention: softcap is {}, must be positive", cap);
}

std::string AttentionConfig::options() const {
  std::vector<std::string> set;
  if (window) set.push_back(fmt::format("window {}", *window));
  if (softcap) set.push_back(fmt::format("softcap {}", *softcap));
  if (sinks) set.emplace_back("sinks");
  return fmt::format("{}", fmt::join(set, ", "));
}

Attention::Attention(const AttentionConfig& c, Index width, bool bias, double dropout_probability, double std,
                     double std_residual, Dtype dtype, RandomKey key_of_weights)
    : config(c), dropout(dropout_probability) {
  c.validate(width);
  const Index kv_width = width / c.heads * c.kv_heads;
  query = Linear(width, width, bias, std, dtype, key_of_weights.fold(0));
  key = Linear(width, kv_width, bias, std, dtype, key_of_weights.fold(1));
  value = Linear(width, kv_width, bias, std, dtype, key_of_weights.fold(2));
  output = Linear(width, width, bias, std_residual, dtype, key_of_weights.fold(3));
  if (c.sinks) {
    const memory::CategoryScope scope(memory::Category::parameters);
    sinks = Parameter(Tensor::zeros({c.heads}, dtype));
  }
}

AttentionOptions Attention::options_of(const ForwardOptions& forward) const {
  return {.causal = true,
          .window = {.left = config.window},
          .softcap = config.softcap,
          .dropout = forward.training ? dropout : 0,
          .dropout_key = forward.key};
}

AttentionExtras Attention::extras_of(Dtype dtype) const {
  AttentionExtras extras = {.sinks = sinks};
  if (config.positions == PositionEncoding::alibi) extras.alibi = alibi_slopes(config.heads, dtype);
  return extras;
}

Var Attention::attend(const Var& q, const Var& k, const Var& v, const ForwardOptions& forward) const {
  if (config.custom) return output(join_heads(config.custom(q, k, v)));
  return output(join_heads(attention(q, k, v, config.kernel, options_of(forward), extras_of(q.dtype()))));
}

Attention::Projections Attention::project(const Var& x, Index first_position) const {
  Projections p = {.q = split_heads(query(x), config.heads),
                   .k = split_heads(key(x), config.kv_heads),
                   .v = split_heads(value(x), config.kv_heads)};
  if (config.positions == PositionEncoding::rope) {
    p.q = rope(p.q, first_position);
    p.k = rope(p.k, first_position);
  }
  return p;
}

Var Attention::operator()(const Var& x, const ForwardOptions& forward) const {
  const auto [q, k, v] = project(x, 0);
  return attend(q, k, v, forward);
}

AttentionProbabilities Attention::probabilities(const Var& x) const {
  const Projections projections = project(x, 0);
  return attention_probabilities(projections.q, projections.k, options_of({}), extras_of(x.dtype()));
}

Var Attention::operator()(const Var& x, KvCache& cache) const {
  const Index t = x.dim(1), context = cache.keys.dim(0);
  check(x.dim(0) == 1, "attention: a cache holds one sequence, x is {}", x.shape());
  check(cache.length + t <= context, "attention: the cache holds {} of {} positions, {} more do not fit",
        cache.length, context, t);
  const auto [q, k, v] = project(x, cache.length);
  // The cache holds plain values, so no gradient could pass through it.
  check_no_gradient_path("attention with a cache", k);
  append(cache.keys, cache.length, k.value());
  append(cache.values, cache.length, v.value());
  cache.length += t;
  return attend(q, filled(cache.keys, cache.length), filled(cache.values, cache.length), {});
}

}  // namespace tilegrad::nn
