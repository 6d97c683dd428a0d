// Exercise 7: flash attention backward. The page is 07_flash_backward.md.
#include "course.h"

// dq (Tq, D), dk and dv (Tk, D), all overwritten, from dout, the inputs, and out and lse of exercise 5. There is
// no p: a tile computes its part again from q, k and lse.
void flash_backward(Matrix dq, Matrix dk, Matrix dv, ConstMatrix dout, ConstMatrix q, ConstMatrix k,
                    ConstMatrix v, ConstMatrix out, ConstVector lse, bool causal, int tile_q, int tile_k) {
  // BEGIN SOLUTION
  const double scale = 1 / std::sqrt(q.cols);
  //! scale-forgotten: const double scale = 1; const double s_scale = 1 / std::sqrt(q.cols);
  const auto visible = [&](int i) { return causal ? std::max(0, i + k.rows - q.rows + 1) : k.rows; };
  //! top-left: const auto visible = [&](int i) { return causal ? std::min(i + 1, k.rows) : k.rows; };
  std::vector<double> delta(q.rows);
  for (int i = 0; i < q.rows; ++i) delta[i] = dot(dout.row(i), out.row(i));
  //! delta-forgotten:
  fill(dq, 0);
  fill(dk, 0);
  fill(dv, 0);
  for (int k0 = 0; k0 < k.rows; k0 += tile_k) {
    for (int q0 = 0; q0 < q.rows; q0 += tile_q) {
      const int q1 = std::min(q0 + tile_q, q.rows);
      //! dq-of-last-tile: const int q1 = std::min(q0 + tile_q, q.rows); for (int i = q0; i < q1; ++i) fill(dq.row(i), 0);
      for (int i = q0; i < q1; ++i) {
        for (int j = k0; j < std::min({k0 + tile_k, k.rows, visible(i)}); ++j) {
          const double p = std::exp(scale * dot(q.row(i), k.row(j)) - lse(i));
          //! scale-forgotten: const double p = std::exp(s_scale * dot(q.row(i), k.row(j)) - lse(i));
          //! lse-forgotten: const double p = std::exp(scale * dot(q.row(i), k.row(j)));
          const double dp = dot(dout.row(i), v.row(j));
          const double ds = p * (dp - delta[i]) * scale;
          //! p-in-place: const double ds = p * scale; (void)dp;
          //! p-left-out: const double ds = (dp - delta[i]) * scale;
          add(dv.row(j), p, dout.row(i));
          add(dk.row(j), ds, q.row(i));
          add(dq.row(i), ds, k.row(j));
        }
      }
    }
  }
  // END SOLUTION
}

// CHECK
namespace check {

struct Functions {
  void (*flash_backward)(Matrix dq, Matrix dk, Matrix dv, ConstMatrix dout, ConstMatrix q, ConstMatrix k,
                         ConstMatrix v, ConstMatrix out, ConstVector lse, bool causal, int tile_q,
                         int tile_k);
};

const std::vector<Mistake> kMistakes = {
    {"scale-forgotten", "dq and dk are not multiplied by scale: S = scale Q K^T"},
    {"top-left",
     "the causal mask is aligned top left, j <= i; here the last query sees the last key: "
     "j <= i + Tk - Tq"},
    {"delta-forgotten", "dS = P dP: delta_i, the dot product of dout_i and out_i, is not subtracted from dP"},
    {"dq-of-last-tile", "dq is what the last tile of keys added; it is the sum over all of them"},
    {"lse-forgotten", "P is exp(S), without lse: it is not normalised"},
    {"p-in-place", "dS is P alone, in place of P (dP - delta)"},
    {"p-left-out", "dS is dP - delta, not multiplied by P"},
};

const std::vector<Case> kCases = tiled_cases();

Tensors inputs(const Case& c) { return attention_inputs(c); }

Tensors run(const Functions& f, const Case& c, Tensors& in) {
  const Forward forward(c, in);
  Tensors out = attention_gradients(c);
  const MemoryLimit limit(c, "P is computed again, a tile at a time");
  f.flash_backward(out[1].matrix(), out[2].matrix(), out[0].matrix(), in[3].matrix(), in[0].matrix(),
                   in[1].matrix(), in[2].matrix(), forward.out.matrix(), forward.lse.vector(), c.causal,
                   c.tile_q, c.tile_k);
  limit.check();
  return out;
}

double loss(const Case& c, Tensors& in) { return attention_loss(c, in); }

}  // namespace check
