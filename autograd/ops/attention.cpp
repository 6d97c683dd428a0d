#include "kernels/attention.h"

#include "autograd/ops.h"
#include "autograd/ops/checks.h"
#include "autograd/ops/heads_view.h"
#include "autograd/saved.h"
#include "autograd/tape.h"

namespace tilegrad {

namespace {

using kernels::AttentionGrads;
using kernels::AttentionInputs;

// What both rules keep of the inputs.
struct SavedInputs {
  Saved q, k, v;

  template <class T>
  AttentionInputs<T> view(std::string_view op) const {
    return {heads_view<T>(q.get(op, "q")), heads_view<T>(k.get(op, "k")), heads_view<T>(v.get(op, "v"))};
  }
};

template <class T>
AttentionGrads<T> wanted_grads(InputGrads& dx) {
  AttentionGrads<T> grads;
  const auto take = [&](int i, kernels::Heads<T>& heads, Write& write) {
    if (!dx.wanted(i)) return;
    const InputGrads::Slot slot = dx.slot(i);
    heads = mut_heads_view<T>(*slot.grad);
    write = slot.write;
  };
  take(0, grads.dq, grads.write_q);
  take(1, grads.dk, grads.write_k);
  take(2, grads.dv, grads.write_v);
  return grads;
}

// Keeps the probabilities: memory grows with Tq · Tk.
struct NaiveAttentionRule {
  static constexpr std::string_view name = "attention (naive)";
  SavedInputs in;
  Saved p;  // (B, Hq, Tq, Tk)
  AttentionOptions options;

  void backward(const Tensor& dout, InputGrads& dx) {
    with_float_type(name, dout.dtype(), [&]<class T>() {
      kernels::naive_attention_backward<T>(wanted_grads<T>(dx), heads_view<T>(dout), in.view<T>(name),
                                           p.get(name, "p").view<T>(), options);
    });
  }
};

// Keeps the output and one number a row; the probabilities are computed again, tile by tile.
struct FlashAttentionRule {
  static constexpr std::string_view name = "attention (flash)";
  SavedInputs in;
  Saved out;  // (B, Tq, Hq, Dv)
  Saved lse;  // (B, Hq, Tq)
  AttentionOptions options;

  void backward(const Tensor& dout, InputGrads& dx) {
    with_float_type(name, dout.dtype(), [&]<class T>() {
      kernels::flash_attention_backward<T>(wanted_grads<T>(dx), heads_view<T>(dout), in.view<T>(name),
                                           heads_view<T>(out.get(name, "out")),
                                           lse.get(name, "lse").view<T>(), options);
    });
  }
};

void check_inputs(const Var& q, const Var& k, const Var& v, const AttentionOptions& options) {
  constexpr std::string_view op = "attention";
  check(q.rank() == 4 && k.rank() == 4 && v.rank() == 4, "{}: q, k and v are (B, T, H, D), not {}, {} and {}",
        op, q.shape(), k.shape(), v.shape());
  check_same_dtype(op, q, k);
  check_same_dtype(op, q, v);
  check(q.dim(0) == k.dim(0) && k.shape().with(3, 0) == v.shape().with(3, 0),
        "{}: batch, length or heads differ: q is {}, k is {}, v is {}", op, q.shape(), k.shape(), v.shape());
  check(q.dim(3) == k.dim(3), "{}: head sizes differ: q is {}, k is {}", op, q.shape(), k.shape());
  check(k.dim(2) > 0 && q.dim(2) % k.dim(2) == 0, "{}: {} key/value heads do not divide {} query heads", op,
        k.dim(2), q.dim(2));
  check(options.dropout >= 0 && options.dropout < 1, "{}: dropout is {}, not in [0, 1)", op, options.dropout);
}

Var naive(const Var& q, const Var& k, const Var& v, const AttentionOptions& options, Tensor out, Tensor lse) {
  Tensor p = Tensor::empty({q.dim(0), q.dim(2), q.dim(1), k.dim(1)}, q.dtype());
  with_float_type("attention", q.dtype(), [&]<class T>() {
    const AttentionInputs<T> in = {heads_view<T>(q.value()), heads_view<T>(k.value()),
                                   heads_view<T>(v.value())};
    kernels::naive_attention<T>(mut_heads_view<T>(out), lse.mut<T>(), p.mut<T>(), in, options);
  });
  return record(out, {q, k, v}, [&] {
    return NaiveAttentionRule{
        .in = {Saved(q.value()), Saved(k.value()), Saved(v.value())}, .p = Saved(p), .options = options};
  });
}

Var flash(const Var& q, const Var& k, const Var& v, const AttentionOptions& options, Tensor out, Tensor lse) {
  with_float_type("attention", q.dtype(), [&]<class T>() {
    const AttentionInputs<T> in = {heads_view<T>(q.value()), heads_view<T>(k.value()),
                                   heads_view<T>(v.value())};
    kernels::flash_attention<T>(mut_heads_view<T>(out), lse.mut<T>(), in, options);
  });
  return record(out, {q, k, v}, [&] {
    return FlashAttentionRule{.in = {Saved(q.value()), Saved(k.value()), Saved(v.value())},
                              .out = Saved(out),
                              .lse = Saved(lse),
                              .options = options};
  });
}

}  // namespace

Var attention(const Var& q, const Var& k, const Var& v, AttentionKernel kernel,
              const AttentionOptions& options) {
  check_inputs(q, k, v, options);
  Tensor out = Tensor::empty(q.shape().with(3, v.dim(3)), q.dtype());
  Tensor lse = Tensor::empty({q.dim(0), q.dim(2), q.dim(1)}, q.dtype());
  return kernel == AttentionKernel::naive ? naive(q, k, v, options, out, lse)
                                          : flash(q, k, v, options, out, lse);
}

}  // namespace tilegrad
