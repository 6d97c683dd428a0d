#include "tilegrad/kernels/attention/attention.h"

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad {

namespace {

using kernels::AttentionGrads;
using kernels::AttentionInputs;
using kernels::Compute;
using kernels::ScoreView;

// What attention reads. The first kTracked may be on a gradient path; all but q, k and v may be undefined.
enum Operand {
  kQ,
  kK,
  kV,
  kBias,
  kSinks,
  kTracked,
  kMask = kTracked,
  kAlibi,
  kKLengths,
  kCuQ,
  kCuK,
  kOperands
};
constexpr std::array<std::string_view, kOperands> kNames = {"q",    "k",     "v",         "bias", "sinks",
                                                            "mask", "alibi", "k_lengths", "cu_q", "cu_k"};
using Inputs = std::array<Var, kOperands>;
using Operands = std::array<Tensor, kOperands>;
using SavedOperands = std::array<Saved, kOperands>;

// --- Checks ---

void check_shapes(const Var& q, const Var& k, const Var& v) {
  check(q.rank() == 4 && k.rank() == 4 && v.rank() == 4,
        "attention: q, k and v are (B, T, H, D), not {}, {} and {}", q.shape(), k.shape(), v.shape());
  for (const Var& x : {k, v}) {
    check(x.dtype() == q.dtype(), "attention: dtypes differ: {} and {}", q.dtype(), x.dtype());
  }
  check(q.dim(0) == k.dim(0) && k.shape().with(3, 0) == v.shape().with(3, 0),
        "attention: batch, length or heads differ: q is {}, k is {}, v is {}", q.shape(), k.shape(),
        v.shape());
  check(q.dim(3) == k.dim(3), "attention: head sizes differ: q is {}, k is {}", q.shape(), k.shape());
  check(k.dim(2) > 0 && q.dim(2) % k.dim(2) == 0,
        "attention: {} key/value heads do not divide {} query heads", k.dim(2), q.dim(2));
}

void check_options(const AttentionOptions& o) {
  check(o.dropout >= 0 && o.dropout < 1, "attention: dropout is {}, not in [0, 1)", o.dropout);
  check(o.softcap.value_or(1) > 0, "attention: softcap is {}, must be positive", o.softcap.value_or(1));
  const Index left = o.window.left.value_or(0), right = o.window.right.value_or(0);
  check(left >= 0 && right >= 0,
        "attention: the window reaches {} to the left and {} to the right, neither may be negative", left,
        right);
  check(!o.causal || right == 0, "attention: causal sees nothing to the right, the window reaches {}", right);
  check(o.tiles.queries >= 0 && o.tiles.keys >= 0, "attention: tiles of {} queries and {} keys",
        o.tiles.queries, o.tiles.keys);
}

// A bias or mask: (B or 1, Hq or 1, Tq, Tk).
void check_scores(Operand i, const Inputs& in, Dtype dtype) {
  const Tensor& t = in[i].value();
  if (!t.defined()) return;
  const Var &q = in[kQ], &k = in[kK];
  const bool fits = t.rank() == 4 && (t.dim(0) == 1 || t.dim(0) == q.dim(0)) &&
                    (t.dim(1) == 1 || t.dim(1) == q.dim(2)) && t.dim(2) == q.dim(1) && t.dim(3) == k.dim(1);
  check(fits, "attention: {} is {}, not (1 or {}, 1 or {}, {}, {})", kNames[i], t.shape(), q.dim(0), q.dim(2),
        q.dim(1), k.dim(1));
  check(t.dtype() == dtype, "attention: {} is {}, not {}", kNames[i], t.dtype(), dtype);
}

void check_vector(Operand i, const Inputs& in, Index size, Dtype dtype) {
  const Tensor& t = in[i].value();
  if (!t.defined()) return;
  check(t.shape() == Shape{size} && t.dtype() == dtype, "attention: {} is {} {}, not {} ({})", kNames[i],
        t.dtype(), t.shape(), dtype, size);
}

void check_lengths(const Inputs& in) {
  check_vector(kKLengths, in, in[kQ].dim(0), Dtype::i32);
  if (!in[kKLengths].value().defined()) return;
  const Index tk = in[kK].dim(1);
  for (const std::int32_t n : in[kKLengths].value().view<std::int32_t>()) {
    check(n >= 0 && n <= tk, "attention: a key length is {}, not in [0, {}]", n, tk);
  }
}

// Offsets of packed sequences: from 0 to the whole length, never falling.
void check_offsets(Operand i, const Tensor& cu, Index total) {
  check(cu.rank() == 1 && cu.dtype() == Dtype::i32 && cu.size() >= 2,
        "attention: {} is {} {}, not i32 (sequences + 1)", kNames[i], cu.dtype(), cu.shape());
  const auto at = cu.view<std::int32_t>();
  check(at.front() == 0 && at.back() == total, "attention: {} runs from {} to {}, not from 0 to {}",
        kNames[i], at.front(), at.back(), total);
  for (std::size_t n = 1; n < at.size(); ++n) {
    check(at[n - 1] <= at[n], "attention: {} falls from {} to {}", kNames[i], at[n - 1], at[n]);
  }
}

void check_packing(const Inputs& in) {
  const Tensor &cu_q = in[kCuQ].value(), &cu_k = in[kCuK].value();
  if (!cu_q.defined() && !cu_k.defined()) return;
  check(cu_q.defined() && cu_k.defined(), "attention: cu_q and cu_k go together, {} is missing",
        cu_q.defined() ? "cu_k" : "cu_q");
  check(in[kQ].dim(0) == 1, "attention: packed sequences have batch 1, not {}", in[kQ].dim(0));
  check(!in[kKLengths].value().defined(),
        "attention: packed sequences have lengths of their own, k_lengths would contradict them");
  check_offsets(kCuQ, cu_q, in[kQ].dim(1));
  check_offsets(kCuK, cu_k, in[kK].dim(1));
  check(cu_q.size() == cu_k.size(), "attention: cu_q has {} sequences, cu_k {}", cu_q.size() - 1,
        cu_k.size() - 1);
}

void check_attention(const Inputs& in, const AttentionOptions& options) {
  check_shapes(in[kQ], in[kK], in[kV]);
  check_options(options);
  const Dtype computed = compute_dtype(in[kQ].dtype());
  const Index heads = in[kQ].dim(2);
  check_scores(kBias, in, computed);
  check_scores(kMask, in, Dtype::u8);
  check_vector(kSinks, in, heads, computed);
  check_vector(kAlibi, in, heads, computed);
  check_lengths(in);
  check_packing(in);
}

// --- What the kernels see ---

// The op takes all types that its kernels take: bf16 as well.
template <class F>
void with_attention_type(Dtype dtype, F&& f) {
  if (dtype == Dtype::bf16) {
    f.template operator()<bf16>();
  } else {
    with_float_type("attention", dtype, f);
  }
}

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
  for (int i = 0; i < kOperands; ++i) operands[i] = saved[i].get(op, kNames[i]);
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
    with_attention_type(dout.dtype(), [&]<class T>() {
      using Accum = Compute<T>;
      kernels::naive_attention_backward<T>(
          needed_grads<T>(dx, in), dout.heads<T>(), view<T>(in), p.get(name, "p").view<Accum>(), options,
          lse.get(name, "lse").view<Accum>(), view_if_defined<Accum>(dys[1]));
    });
  }
};

// Keeps the output and one number a row; the probabilities are computed again, tile by tile.
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
    with_attention_type(dout.dtype(), [&]<class T>() {
      using Accum = Compute<T>;
      kernels::flash_attention_backward<T>(needed_grads<T>(dx, in), dout.heads<T>(), view<T>(in),
                                           out_value.heads<T>(), lse.get(name, "lse").view<Accum>(), options,
                                           view_if_defined<Accum>(dys[1]));
    });
  }
};

using Outputs = std::array<Tensor, 2>;  // out, lse

std::array<Var, 2> naive(const Inputs& inputs, const AttentionOptions& options, Outputs y) {
  const Operands o = values(inputs);
  Tensor p = Tensor::empty({o[kQ].dim(0), o[kQ].dim(2), o[kQ].dim(1), o[kK].dim(1)}, y[1].dtype());
  with_attention_type(o[kQ].dtype(), [&]<class T>() {
    using Accum = Compute<T>;
    kernels::naive_attention<T>(y[0].mut_heads<T>(), y[1].mut<Accum>(), p.mut<Accum>(), view<T>(o), options);
  });
  return record<2>(y, inputs, [&] {
    return NaiveAttentionRule{.operands = save(inputs),
                              .p = Saved(p),
                              .lse = Saved(y[1]),
                              .out_shape = y[0].shape(),
                              .options = options};
  });
}

std::array<Var, 2> flash(const Inputs& inputs, const AttentionOptions& options, Outputs y) {
  with_attention_type(y[0].dtype(), [&]<class T>() {
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
  const Inputs inputs = {q, k, v, e.bias, e.sinks, e.mask, e.alibi, e.k_lengths, e.cu_q, e.cu_k};
  check_attention(inputs, options);
  const Outputs y = {Tensor::empty(q.shape().with(3, v.dim(3)), q.dtype()),
                     Tensor::empty({q.dim(0), q.dim(2), q.dim(1)}, compute_dtype(q.dtype()))};
  const auto [out, lse] = is_naive ? naive(inputs, options, y) : flash(inputs, options, y);
  return {out, lse};
}

Var attention(const Var& q, const Var& k, const Var& v, AttentionKernel kernel,
              const AttentionOptions& options, const AttentionExtras& extras) {
  return attention_with_lse(q, k, v, kernel, options, extras).out;
}

}  // namespace tilegrad
