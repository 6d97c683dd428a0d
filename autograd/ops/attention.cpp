#include "tilegrad/kernels/attention/attention.h"

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/ops/attention_checks.h"
#include "tilegrad/autograd/ops/heads_view.h"
#include "tilegrad/autograd/ops/wanted.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/kernels/elementwise.h"

namespace tilegrad {

namespace {

using kernels::AttentionGrads;
using kernels::AttentionInputs;
using kernels::ScoreView;

// Places of the tracked inputs.
enum Input { kQ, kK, kV, kBias, kSinks };

Saved save_if_defined(const Var& x) { return x.value().defined() ? Saved(x) : Saved(); }

template <class T>
std::span<const T> view_if_defined(const Tensor& t) {
  return t.defined() ? t.view<T>() : std::span<const T>();
}

// The op is for all types that the kernels are for: bf16 as well.
template <class F>
void with_attention_type(Dtype dtype, F&& f) {
  if (dtype == Dtype::bf16) {
    f.template operator()<bf16>();
  } else {
    with_float_type("attention", dtype, f);
  }
}

// A (B or 1, Hq or 1, Tq, Tk) tensor; axes of size 1 are broadcast by a stride of 0.
template <class T>
ScoreView<T> view_scores(const Shape& shape, T* data) {
  const Index rows = shape[2] * shape[3];
  return {.data = data,
          .stride_b = shape[0] == 1 ? 0 : shape[1] * rows,
          .stride_h = shape[1] == 1 ? 0 : rows,
          .stride_q = shape[3]};
}

// The tensors that both passes read.
struct Operands {
  Tensor q, k, v, bias, sinks, mask, alibi, k_lengths, cu_q, cu_k;

  template <class T>
  AttentionInputs<T> view() const {
    AttentionInputs<T> in = {view_heads<T>(q), view_heads<T>(k), view_heads<T>(v)};
    using Accum = kernels::Compute<T>;
    if (bias.defined()) in.bias = view_scores<const Accum>(bias.shape(), bias.view<Accum>().data());
    if (mask.defined())
      in.mask = view_scores<const std::uint8_t>(mask.shape(), mask.view<std::uint8_t>().data());
    in.sinks = view_if_defined<Accum>(sinks);
    in.alibi = view_if_defined<Accum>(alibi);
    in.k_lengths = view_if_defined<std::int32_t>(k_lengths);
    in.cu_q = view_if_defined<std::int32_t>(cu_q);
    in.cu_k = view_if_defined<std::int32_t>(cu_k);
    return in;
  }
};

// What both rules keep of them.
class SavedOperands {
 public:
  SavedOperands(const Operands& o, std::span<const Var> inputs)
      : q_(inputs[kQ]),
        k_(inputs[kK]),
        v_(inputs[kV]),
        bias_(save_if_defined(inputs[kBias])),
        sinks_(save_if_defined(inputs[kSinks])),
        mask_(save_if_defined(o.mask)),
        alibi_(save_if_defined(o.alibi)),
        k_lengths_(save_if_defined(o.k_lengths)),
        cu_q_(save_if_defined(o.cu_q)),
        cu_k_(save_if_defined(o.cu_k)) {}

  Operands get(std::string_view op) const {
    const auto value = [op](const Saved& saved, std::string_view what) {
      return saved.defined() ? saved.get(op, what) : Tensor();
    };
    return {.q = value(q_, "q"),
            .k = value(k_, "k"),
            .v = value(v_, "v"),
            .bias = value(bias_, "bias"),
            .sinks = value(sinks_, "sinks"),
            .mask = value(mask_, "mask"),
            .alibi = value(alibi_, "alibi"),
            .k_lengths = value(k_lengths_, "k_lengths"),
            .cu_q = value(cu_q_, "cu_q"),
            .cu_k = value(cu_k_, "cu_k")};
  }

 private:
  Saved q_, k_, v_, bias_, sinks_, mask_, alibi_, k_lengths_, cu_q_, cu_k_;
};

template <class T>
AttentionGrads<T> wanted_grads(InputGrads& dx) {
  using Accum = kernels::Compute<T>;
  AttentionGrads<T> grads;
  const auto take_heads = [&](int i, kernels::Grad<kernels::HeadsView<T>>& heads) {
    if (!dx.needs(i)) return;
    const InputGrads::Slot slot = dx.slot(i);
    heads = {.to = mut_view_heads<T>(*slot.grad), .write = slot.write};
  };
  take_heads(kQ, grads.dq);
  take_heads(kK, grads.dk);
  take_heads(kV, grads.dv);
  if (dx.needs(kBias)) {
    const InputGrads::Slot slot = dx.slot(kBias);
    grads.dbias = {.to = view_scores<Accum>(slot.grad->shape(), slot.grad->mut<Accum>().data()),
                   .write = slot.write};
  }
  take_wanted(dx, kSinks, grads.dsinks.to, grads.dsinks.write);
  return grads;
}

// The gradient of out; zero if only lse is used.
Tensor out_gradient(std::span<const Tensor> dys, const Shape& shape, Dtype dtype) {
  return dys[0].defined() ? dys[0] : Tensor::zeros(shape, dtype);
}

// Keeps the probabilities: memory grows with Tq · Tk.
struct NaiveAttentionRule {
  static constexpr std::string_view name = "attention (naive)";
  SavedOperands operands;
  Saved p;    // (B, Hq, Tq, Tk)
  Saved lse;  // (B, Hq, Tq)
  Shape out_shape;
  AttentionOptions options;

  void backward(std::span<const Tensor> dys, InputGrads& dx) {
    const Operands in = operands.get(name);
    const Tensor dout = out_gradient(dys, out_shape, in.q.dtype());
    with_attention_type(dout.dtype(), [&]<class T>() {
      using Accum = kernels::Compute<T>;
      kernels::naive_attention_backward<T>(
          wanted_grads<T>(dx), view_heads<T>(dout), in.view<T>(), p.get(name, "p").view<Accum>(), options,
          lse.get(name, "lse").view<Accum>(), view_if_defined<Accum>(dys[1]));
    });
  }
};

// Keeps the output and one number a row; the probabilities are computed again, tile by tile.
struct FlashAttentionRule {
  static constexpr std::string_view name = "attention (flash)";
  SavedOperands operands;
  Saved out;  // (B, Tq, Hq, Dv)
  Saved lse;  // (B, Hq, Tq)
  AttentionOptions options;

  void backward(std::span<const Tensor> dys, InputGrads& dx) {
    const Operands in = operands.get(name);
    const Tensor& out_value = out.get(name, "out");
    const Tensor dout = out_gradient(dys, out_value.shape(), out_value.dtype());
    with_attention_type(dout.dtype(), [&]<class T>() {
      using Accum = kernels::Compute<T>;
      kernels::flash_attention_backward<T>(wanted_grads<T>(dx), view_heads<T>(dout), in.view<T>(),
                                           view_heads<T>(out_value), lse.get(name, "lse").view<Accum>(),
                                           options, view_if_defined<Accum>(dys[1]));
    });
  }
};

using Outputs = std::array<Tensor, 2>;  // out, lse

std::array<Var, 2> naive(const Operands& o, std::span<const Var> inputs, const AttentionOptions& options,
                         Outputs y) {
  Tensor p = Tensor::empty({o.q.dim(0), o.q.dim(2), o.q.dim(1), o.k.dim(1)}, y[1].dtype());
  with_attention_type(o.q.dtype(), [&]<class T>() {
    using Accum = kernels::Compute<T>;
    kernels::naive_attention<T>(mut_view_heads<T>(y[0]), y[1].mut<Accum>(), p.mut<Accum>(), o.view<T>(),
                                options);
  });
  return record<2>(y, inputs, [&] {
    return NaiveAttentionRule{.operands = SavedOperands(o, inputs),
                              .p = Saved(p),
                              .lse = Saved(y[1]),
                              .out_shape = y[0].shape(),
                              .options = options};
  });
}

std::array<Var, 2> flash(const Operands& o, std::span<const Var> inputs, const AttentionOptions& options,
                         Outputs y) {
  with_attention_type(o.q.dtype(), [&]<class T>() {
    kernels::flash_attention<T>(mut_view_heads<T>(y[0]), y[1].mut<kernels::Compute<T>>(), o.view<T>(),
                                options);
  });
  return record<2>(y, inputs, [&] {
    return FlashAttentionRule{
        .operands = SavedOperands(o, inputs), .out = Saved(y[0]), .lse = Saved(y[1]), .options = options};
  });
}

}  // namespace

AttentionResult attention_with_lse(const Var& q, const Var& k, const Var& v, AttentionKernel kernel,
                                   const AttentionOptions& options, const AttentionExtras& extras) {
  const OpScope scope(kernel == AttentionKernel::naive ? NaiveAttentionRule::name : FlashAttentionRule::name);
  check_attention(q, k, v, options, extras);
  const Operands operands = {.q = q.value(),
                             .k = k.value(),
                             .v = v.value(),
                             .bias = extras.bias.value(),
                             .sinks = extras.sinks.value(),
                             .mask = extras.mask,
                             .alibi = extras.alibi,
                             .k_lengths = extras.k_lengths,
                             .cu_q = extras.cu_q,
                             .cu_k = extras.cu_k};
  const std::array<Var, 5> inputs = {q, k, v, extras.bias, extras.sinks};
  const Outputs y = {Tensor::empty(q.shape().with(3, v.dim(3)), q.dtype()),
                     Tensor::empty({q.dim(0), q.dim(2), q.dim(1)}, compute_dtype(q.dtype()))};
  const auto [out, lse] = kernel == AttentionKernel::naive ? naive(operands, inputs, options, y)
                                                           : flash(operands, inputs, options, y);
  return {out, lse};
}

Var attention(const Var& q, const Var& k, const Var& v, AttentionKernel kernel,
              const AttentionOptions& options, const AttentionExtras& extras) {
  return attention_with_lse(q, k, v, kernel, options, extras).out;
}

}  // namespace tilegrad
