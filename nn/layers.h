#pragma once

#include "tilegrad/autograd/ops.h"
#include "tilegrad/nn/module.h"

namespace tilegrad::nn {

/// How weights start: N(0, embedding²) for embeddings, N(0, linear²) for the matrices of linear layers;
/// biases 0, norm weights 1. With `scale_residual`, the matrices that write into the residual stream (the
/// output projections of attention and mlp) are divided by √(2 L), as in GPT-2.
struct Init {
  double embedding = 0.02;
  double linear = 0.02;
  bool scale_residual = false;
};

/// y = x Wᵀ + b.
struct Linear {
  Parameter weight;  // (out, in)
  Parameter bias;    // (out), undefined if there is none

  Linear() = default;
  Linear(Index in, Index out, bool with_bias, double std, Dtype dtype, RandomKey key);
  Var operator()(const Var& x) const;  // (..., in) -> (..., out)
  void visit(auto&& f) {
    f("weight", weight);
    f("bias", bias);
  }
};

struct Embedding {
  Parameter weight;  // (V, C)

  Embedding() = default;
  Embedding(Index vocabulary, Index width, double std, Dtype dtype, RandomKey key);
  Var operator()(const Tensor& ids) const;  // i32 (...) -> (..., C)
  void visit(auto&& f) { f("weight", weight); }
};

/// What a cheap step, a norm or an activation, saves for backward: its output, or the inputs from which
/// backward computes the output again.
enum class SavePolicy { output, inputs };

enum class NormKind { layernorm, rmsnorm };

struct Norm {
  NormKind kind = NormKind::layernorm;
  Parameter weight;  // (C)
  Parameter bias;    // (C), layernorm only

  Norm() = default;
  Norm(NormKind kind, Index width, Dtype dtype);
  Var operator()(const Var& x, SavePolicy save = SavePolicy::output) const;  // (..., C) -> (..., C)
  void visit(auto&& f) {
    f("weight", weight);
    f("bias", bias);
  }
};

enum class MlpKind { gelu, relu, swiglu };

/// down(act(up(x))), or down(silu(gate(x)) ⊙ up(x)) for swiglu.
struct Mlp {
  MlpKind kind = MlpKind::gelu;
  Linear gate;  // (F, C), swiglu only
  Linear up;    // (F, C)
  Linear down;  // (C, F)

  Mlp() = default;
  Mlp(MlpKind kind, Index width, Index hidden, bool bias, double std, double std_residual, Dtype dtype,
      RandomKey key);
  /// `save` is about the activation.
  Var operator()(const Var& x, SavePolicy save = SavePolicy::output) const;  // (..., C) -> (..., C)
  void visit(auto&& f) {
    f("gate", gate);
    f("up", up);
    f("down", down);
  }
};

}  // namespace tilegrad::nn
