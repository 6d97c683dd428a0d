// Naive attention on tensors that are stored in 16 bits: copies of them in float, the passes of
// naive_forward.cpp and naive_backward.cpp on these, and each result rounded once. The copies are small next
// to the probabilities.
#include <algorithm>

#include "tilegrad/base/memory.h"
#include "tilegrad/kernels/attention/attention.h"
#include "tilegrad/kernels/attention/workspace.h"

namespace tilegrad::kernels {

namespace {

struct Marks {
  StageMarks stages;
};

// Calls f(b, t, h) for every row of D elements, in parallel over b and t.
template <class X, class F>
void for_each_row(const X& x, Stage stage, F&& f) {
  constexpr Index kPiece = 64;
  const Workspace<float, Marks> workspace({});
  const Index rows = x.batch * x.time;
  workspace.run(ceil_div(rows, kPiece), [&](Index piece, const Marks& w) {
    for (Index n = piece * kPiece; n < std::min((piece + 1) * kPiece, rows); ++n) {
      for (Index h = 0; h < x.heads; ++h) f(n / x.time, n % x.time, h);
    }
    w.stages.end(stage);
  });
}

// A tensor in float, in memory of its own.
class Wide {
 public:
  // Of the shape of x and with nothing in it yet; null if x is.
  template <class B>
  explicit Wide(const HeadsView<B>& x)
      : block_(x.data == nullptr ? 0 : x.batch * x.time * x.heads * x.dim * Index{sizeof(float)},
               memory::Category::workspace),
        heads_(x.data == nullptr ? nullptr : reinterpret_cast<float*>(block_.data()), x.batch, x.time,
               x.heads, x.dim) {}

  // The numbers of x.
  template <Narrow S>
  static Wide copy(const HeadsView<const S>& x) {
    Wide wide(x);
    for_each_row(x, Stage::prepare, [&](Index b, Index t, Index h) {
      const S* from = x.head(b, h).row(t);
      float* to = wide.heads_.head(b, h).row(t);
      for (Index c = 0; c < x.dim; ++c) to[c] = widen(from[c]);
    });
    return wide;
  }

  const HeadsView<float>& heads() const { return heads_; }

  // y = or += this, rounded.
  template <Narrow S>
  void round_into(const HeadsView<S>& y, Write write) const {
    if (y.data == nullptr) return;
    for_each_row(y, Stage::store, [&](Index b, Index t, Index h) {
      const float* from = heads_.head(b, h).row(t);
      S* to = y.head(b, h).row(t);
      Narrowing<S> narrowed;
      for (Index c = 0; c < y.dim; ++c)
        to[c] = narrowed(write == Write::overwrite ? from[c] : widen(to[c]) + from[c]);
    });
  }

 private:
  memory::Block block_;
  HeadsView<float> heads_;
};

struct WideInputs {
  template <Narrow S>
  explicit WideInputs(const AttentionInputs<S>& in)
      : q(Wide::copy(in.q)),
        k(Wide::copy(in.k)),
        v(Wide::copy(in.v)),
        view(in.template with<float>(q.heads(), k.heads(), v.heads())) {}

  Wide q, k, v;
  AttentionInputs<float> view;
};

template <Narrow S>
void forward(HeadsView<S> out, std::span<float> lse, std::span<float> p, const AttentionInputs<S>& in,
             const AttentionOptions& options) {
  const WideInputs wide(in);
  const Wide wide_out(out);
  naive_attention<float>(wide_out.heads(), lse, p, wide.view, options);
  wide_out.round_into(out, Write::overwrite);
}

template <Narrow S>
void backward(const AttentionGrads<S>& grads, HeadsView<const S> dout, const AttentionInputs<S>& in,
              std::span<const float> p, const AttentionOptions& options, std::span<const float> lse,
              std::span<const float> dlse) {
  const WideInputs wide(in);
  const Wide wide_dout = Wide::copy(dout), dq(grads.dq.to), dk(grads.dk.to), dv(grads.dv.to);
  naive_attention_backward<float>({.dq = {dq.heads()},
                                   .dk = {dk.heads()},
                                   .dv = {dv.heads()},
                                   .dbias = grads.dbias,
                                   .dsinks = grads.dsinks},
                                  wide_dout.heads(), wide.view, p, options, lse, dlse);
  dq.round_into(grads.dq.to, grads.dq.write);
  dk.round_into(grads.dk.to, grads.dk.write);
  dv.round_into(grads.dv.to, grads.dv.write);
}

}  // namespace

template <>
void naive_attention<bf16>(HeadsView<bf16> out, std::span<float> lse, std::span<float> p,
                           const AttentionInputs<bf16>& in, const AttentionOptions& options) {
  forward(out, lse, p, in, options);
}
template <>
void naive_attention_backward<bf16>(const AttentionGrads<bf16>& grads, HeadsView<const bf16> dout,
                                    const AttentionInputs<bf16>& in, std::span<const float> p,
                                    const AttentionOptions& options, std::span<const float> lse,
                                    std::span<const float> dlse) {
  backward(grads, dout, in, p, options, lse, dlse);
}

template <>
void naive_attention<f16>(HeadsView<f16> out, std::span<float> lse, std::span<float> p,
                          const AttentionInputs<f16>& in, const AttentionOptions& options) {
  forward(out, lse, p, in, options);
}
template <>
void naive_attention_backward<f16>(const AttentionGrads<f16>& grads, HeadsView<const f16> dout,
                                   const AttentionInputs<f16>& in, std::span<const float> p,
                                   const AttentionOptions& options, std::span<const float> lse,
                                   std::span<const float> dlse) {
  backward(grads, dout, in, p, options, lse, dlse);
}

}  // namespace tilegrad::kernels
