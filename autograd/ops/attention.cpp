#include "tilegrad/kernels/attention/attention.h"

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/ops/attention_checks.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad {

namespace {

using kernels::AttentionGrads;
using kernels::AttentionInputs;
using kernels::Compute;
using kernels::ScoreView;

using Inputs = std::array<Var, kOperands>;
using Operands = std::array<Tensor, kOperands>;
using SavedOperands = std::array<Saved, kOperands>;

// What the checks see of an operand; the values only of vectors of integers.
OperandInfo info(const Tensor& t) {
  if (!t.defined()) return {};
  const bool integers = t.rank() == 1 && t.dtype() == Dtype::i32;
  return {.given = true,
          .shape = t.shape(),
          .dtype = t.dtype(),
          .integers = integers ? t.view<std::int32_t>() : std::span<const std::int32_t>()};
}

void check_inputs(const Inputs& inputs, const AttentionOptions& options, AttentionKernel kernel) {
  std::array<OperandInfo, kOperands> infos;
  for (int i = 0; i < kOperands; ++i) infos[i] = info(inputs[i].value());
  check_attention(infos, options);
  if (kernel == AttentionKernel::naive) check_blas_sizes(infos);
}

// --- What the kernels see ---

template <class T>
std::span<const T> view_if_defined(const Tensor& t) {
  return t.defined() ? t.view<T>() : std::span<const T>();
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
template <class T>
ScoreView<const T> view_scores(const Tensor& t) {
  return t.defined() ? view_scores(t.shape(), t.view<T>().data()) : ScoreView<const T>();
}

template <class T>
AttentionInputs<T> view(const Operands& o) {
  using Accum = Compute<T>;
  return {.q = o[kQ].heads<T>(),
          .k = o[kK].heads<T>(),
          .v = o[kV].heads<T>(),
          .bias = view_scores<Accum>(o[kBias]),
          .mask = view_scores<std::uint8_t>(o[kMask]),
          .alibi = view_if_defined<Accum>(o[kAlibi]),
          .sinks = view_if_defined<Accum>(o[kSinks]),
          .k_lengths = view_if_defined<std::int32_t>(o[kKLengths]),
          .cu_q = view_if_defined<std::int32_t>(o[kCuQ]),
          .cu_k = view_if_defined<std::int32_t>(o[kCuK])};
}

template <class T>
AttentionGrads<T> needed_grads(InputGrads& dx, const Operands& o) {
  using Accum = Compute<T>;
  const auto dbias = dx.grad<Accum>(kBias);
  AttentionGrads<T> grads = {.dq = dx.grad_heads<T>(kQ),
                             .dk = dx.grad_heads<T>(kK),
                             .dv = dx.grad_heads<T>(kV),
                             .dsinks = dx.grad<Accum>(kSinks)};
  if (dbias) grads.dbias = {view_scores(o[kBias].shape(), dbias.to.data()), dbias.write};
  return grads;
}

// --- Rules ---

Operands values(const Inputs& inputs) {
  Operands operands;
  for (int i = 0; i < kOperands; ++i) operands[i] = inputs[i].value();
  return operands;
}

SavedOperands save(const Inputs& inputs) {
  SavedOperands saved;
  for (int i = 0; i < kOperands; ++i) saved[i] = Saved(inputs[i]);
  return saved;
}

Operands restore(const SavedOperands& saved, std::string_view op) {
  Operands operands;
  for (int i = 0; i < kOperands; ++i) operands[i] = saved[i].get(op, kOperandNames[i]);
  return operands;
}

// The gradient of out; zero if only lse is used.
Tensor out_gradient(std::span<const Tensor> dys, const Shape& shape, Dtype dtype) {
  return dys[0].defined() ? dys[0] : Tensor::zeros(shape, dtype);
}

// Keeps the probabilities: memory grows with Tq · Tk.
struct NaiveAttentionRule {
  static constexpr std::string_view name = "attention (naive)";
  static constexpr std::size_t checked_outputs = 1;  // lse is −inf where a query sees no key
  SavedOperands operands;
  Saved p;    // (B, Hq, Tq, Tk)
  Saved lse;  // (B, Hq, Tq)
  Shape out_shape;
  AttentionOptions options;

  void backward(std::span<const Tensor> dys, InputGrads& dx) {
    const Operands in = restore(operands, name);
    const Tensor dout = out_gradient(dys, out_shape, in[kQ].dtype());
    with_stored_type("attention", dout.dtype(), [&]<class T>() {
      using Accum = Compute<T>;
      kernels::naive_attention_backward<T>(
          needed_grads<T>(dx, in), dout.heads<T>(), view<T>(in), p.get(name, "p").view<Accum>(), options,
          lse.get(name, "lse").view<Accum>(), view_if_defined<Accum>(dys[1]));
    });
  }
};

// Keeps the output and one number per row; the probabilities are computed again, tile by tile.
struct FlashAttentionRule {
  static constexpr std::string_view name = "attention (flash)";
  static constexpr std::size_t checked_outputs = 1;
  SavedOperands operands;
  Saved out;  // (B, Tq, Hq, Dv)
  Saved lse;  // (B, Hq, Tq)
  AttentionOptions options;

  void backward(std::span<const Tensor> dys, InputGrads& dx) {
    const Operands in = restore(operands, name);
    const Tensor& out_value = out.get(name, "out");
    const Tensor dout = out_gradient(dys, out_value.shape(), out_value.dtype());
    with_stored_type("attention", dout.dtype(), [&]<class T>() {
      using Accum = Compute<T>;
      kernels::flash_attention_backward<T>(needed_grads<T>(dx, in), dout.heads<T>(), view<T>(in),
                                           out_value.heads<T>(), lse.get(name, "lse").view<Accum>(), options,
                                           view_if_defined<Accum>(dys[1]));
    });
  }
};

Inputs inputs_of(const Var& q, const Var& k, const Var& v, const AttentionExtras& e) {
  return {q, k, v, e.bias, e.sinks, e.mask, e.alibi, e.k_lengths, e.cu_q, e.cu_k};
}

using Outputs = std::array<Tensor, 2>;  // out, lse

Outputs empty_outputs(const Var& q, const Var& v) {
  return {Tensor::empty(q.shape().with(3, v.dim(3)), q.dtype()),
          Tensor::empty({q.dim(0), q.dim(2), q.dim(1)}, compute_dtype(q.dtype()))};
}

// (B, Hq, Tq, Tk), before dropout.
Tensor naive_probabilities(const Operands& o, const AttentionOptions& options, Outputs& y) {
  Tensor p = Tensor::empty({o[kQ].dim(0), o[kQ].dim(2), o[kQ].dim(1), o[kK].dim(1)}, y[1].dtype());
  with_stored_type("attention", o[kQ].dtype(), [&]<class T>() {
    using Accum = Compute<T>;
    kernels::naive_attention<T>(y[0].mut_heads<T>(), y[1].mut<Accum>(), p.mut<Accum>(), view<T>(o), options);
  });
  return p;
}

std::array<Var, 2> naive(const Inputs& inputs, const AttentionOptions& options, Outputs y) {
  const Operands o = values(inputs);
  const Tensor p = naive_probabilities(o, options, y);
  return record<2>(y, inputs, [&] {
    return NaiveAttentionRule{.operands = save(inputs),
                              .p = Saved(p),
                              .lse = Saved(y[1]),
                              .out_shape = y[0].shape(),
                              .options = options};
  });
}

std::array<Var, 2> flash(const Inputs& inputs, const AttentionOptions& options, Outputs y) {
  with_stored_type("attention", y[0].dtype(), [&]<class T>() {
    kernels::flash_attention<T>(y[0].mut_heads<T>(), y[1].mut<Compute<T>>(), view<T>(values(inputs)),
                                options);
  });
  return record<2>(y, inputs, [&] {
    return FlashAttentionRule{
        .operands = save(inputs), .out = Saved(y[0]), .lse = Saved(y[1]), .options = options};
  });
}

}  // namespace

AttentionResult attention_with_lse(const Var& q, const Var& k, const Var& v, AttentionKernel kernel,
                                   const AttentionOptions& options, const AttentionExtras& e) {
  const bool is_naive = kernel == AttentionKernel::naive;
  const OpScope op(is_naive ? NaiveAttentionRule::name : FlashAttentionRule::name);
  const Inputs inputs = inputs_of(q, k, v, e);
  check_inputs(inputs, options, kernel);
  const Outputs y = empty_outputs(q, v);
  const auto [out, lse] = is_naive ? naive(inputs, options, y) : flash(inputs, options, y);
  return {out, lse};
}

Var attention(const Var& q, const Var& k, const Var& v, AttentionKernel kernel,
              const AttentionOptions& options, const AttentionExtras& extras) {
  return attention_with_lse(q, k, v, kernel, options, extras).out;
}

// The kernel multiplies P by something as well; k has the shape for it.
AttentionProbabilities attention_probabilities(const Var& q, const Var& k, const AttentionOptions& options,
                                               const AttentionExtras& extras) {
  static constexpr std::string_view name = "attention probabilities";
  const OpScope op(name);
  check_no_gradient_path(name, q);
  check_no_gradient_path(name, k);
  const Inputs inputs = inputs_of(q, k, k, extras);
  check_inputs(inputs, options, AttentionKernel::naive);
  Outputs y = empty_outputs(q, k);
  const Tensor p = naive_probabilities(values(inputs), options, y);
  return {.p = p, .lse = y[1]};
}

}  // namespace tilegrad
