#pragma once

#include <functional>
#include <optional>
#include <string>

#include "tilegrad/autograd/ops.h"
#include "tilegrad/nn/layers.h"

namespace tilegrad::nn {

/// What differs between training and inference. The key decides every dropout mask: the same key, the same
/// masks.
struct ForwardOptions {
  bool training = false;
  RandomKey key = {};  ///< fold the step into it

  ForwardOptions fold(std::uint64_t part) const { return {.training = training, .key = key.fold(part)}; }
};

/// How the model knows the order of tokens: by a learned vector for each position, by rotations of queries and
/// keys, or by scores that fall with the distance (Press et al., "Train Short, Test Long", 2022).
enum class PositionEncoding { learned, rope, alibi };

/// Causal attention by code from outside the library: q (B, Tq, Hq, D), k and v (B, Tk, Hkv, D) -> (B, Tq, Hq, D).
/// The last query sees the last key.
using AttentionFunction = std::function<Var(const Var& q, const Var& k, const Var& v)>;

/// The settings of attention, for one layer or for a model, whose layers share them.
struct AttentionConfig {
  Index heads = 0;     // Hq, divides C
  Index kv_heads = 0;  // Hkv, divides Hq: Hq is MHA, 1 is MQA, anything between GQA
  AttentionKernel kernel = AttentionKernel::flash;
  PositionEncoding positions = PositionEncoding::learned;
  std::optional<Index> window = {};    ///< how many positions a query looks back; all of them unless given
  std::optional<double> softcap = {};  ///< bounds the scores smoothly
  bool sinks = false;                  ///< a learnable logit without a value for each query head
  AttentionFunction custom = {};  ///< in place of the kernel; it knows no window, softcap, sinks or ALiBi

  /// Throws Error with one line on the first setting that makes no sense in a model of this width.
  void validate(Index width) const;
  /// What is set beyond plain causal attention, in words: "window 16, softcap 30, sinks"; empty if nothing is.
  std::string options() const;
};

/// The slopes of ALiBi for query heads h = 0, 1, ..., by which scores fall with the distance: (Hq). If Hq is a
/// power of two, 2^(−8 (h + 1) / Hq). Otherwise, as in the authors' code and in BLOOM and MPT, those of the
/// nearest lower power of two P, then every second one of 2 P, from the first on.
Tensor alibi_slopes(Index heads, Dtype dtype);

/// Keys and values of the positions that one layer has seen, for decoding one sequence.
struct KvCache {
  Tensor keys;    // (context, Hkv, D)
  Tensor values;  // (context, Hkv, D)
  Index length = 0;

  KvCache() = default;
  KvCache(Index context, Index kv_heads, Index head_size, Dtype dtype);
};

/// Causal self-attention with Hq query heads that share Hkv key/value heads.
struct Attention {
  AttentionConfig config;
  double dropout = 0;  // of the attention probabilities, when training
  Linear query;        // (Hq D, C)
  Linear key;          // (Hkv D, C)
  Linear value;        // (Hkv D, C)
  Linear output;       // (C, Hq D)
  Parameter sinks;     // (Hq), starts at 0; undefined without config.sinks

  Attention() = default;
  /// Throws as config.validate(width) does.
  Attention(const AttentionConfig& config, Index width, bool bias, double dropout, double std,
            double std_residual, Dtype dtype, RandomKey key);
  Var operator()(const Var& x, const ForwardOptions& forward) const;  // (B, T, C) -> (B, T, C)
  /// The next T positions of one sequence, x (1, T, C): appends their keys and values to the cache and
  /// attends to all of it. Throws if the cache is full, or if a gradient would have to pass through it.
  Var operator()(const Var& x, KvCache& cache) const;
  /// How each query weighs the tokens up to its own, whatever kernel the layer uses: x (B, T, C) -> p (B, Hq, T, T).
  /// An Error while a tape records.
  AttentionProbabilities probabilities(const Var& x) const;
  void visit(auto&& f) {
    f("query", query);
    f("key", key);
    f("value", value);
    f("output", output);
    f("sinks", sinks);
  }

 private:
  struct Projections {
    Var q, k, v;
  };
  // x (B, T, C), at positions from `first_position` on -> q (B, T, Hq, D), k and v (B, T, Hkv, D)
  Projections project(const Var& x, Index first_position) const;
  // Where the settings become what the op takes, in training, with a cache, and for probabilities.
  AttentionOptions options_of(const ForwardOptions& forward) const;
  AttentionExtras extras_of(Dtype dtype) const;
  // The last query sees the last key. q (B, Tq, Hq, D), k and v (B, Tk, Hkv, D) -> (B, Tq, C)
  Var attend(const Var& q, const Var& k, const Var& v, const ForwardOptions& forward) const;
};

}  // namespace tilegrad::nn
