// Exercise 6: query heads that share keys and values. The page is 06_grouped_heads.md.
#include "course.h"

// q and out (Tq, Hq, D), k and v (Tk, Hkv, D), lse (Hq, Tq). Hq is a multiple of Hkv. out and lse are overwritten.
void grouped_forward(Heads out, Matrix lse, ConstHeads q, ConstHeads k, ConstHeads v, bool causal) {
  // BEGIN SOLUTION
  const int group = q.heads / k.heads;
  for (int h = 0; h < q.heads; ++h) {
    const int shared = h / group;
    //! interleaved: const int shared = h % k.heads; (void)group;
    //! first-head: const int shared = 0; (void)group;
    head_forward(out.head(h), lse.row(h), q.head(h), k.head(shared), v.head(shared), causal);
  }
  // END SOLUTION
}

// The gradients of q, k and v, all overwritten: dq (Tq, Hq, D), dk and dv (Tk, Hkv, D).
void grouped_backward(Heads dq, Heads dk, Heads dv, ConstHeads dout, ConstHeads q, ConstHeads k, ConstHeads v,
                      ConstHeads out, ConstMatrix lse, bool causal) {
  // BEGIN SOLUTION
  const int group = q.heads / k.heads;
  std::vector<double> dk_of_head(k.time * k.dim), dv_of_head(k.time * k.dim);
  const Matrix dk_h(dk_of_head.data(), k.time, k.dim), dv_h(dv_of_head.data(), k.time, k.dim);
  for (int h = 0; h < k.heads; ++h) {
    fill(dk.head(h), 0);
    fill(dv.head(h), 0);
  }
  for (int h = 0; h < q.heads; ++h) {
    const int shared = h / group;
    //! interleaved-backward: const int shared = h % k.heads;
    head_backward(dq.head(h), dk_h, dv_h, dout.head(h), q.head(h), k.head(shared), v.head(shared),
                  out.head(h), lse.row(h), causal);
    for (int j = 0; j < k.time; ++j) {
      add(dk.head(shared).row(j), 1, dk_h.row(j));
      //! last-head: fill(dk.head(shared).row(j), 0); add(dk.head(shared).row(j), 1, dk_h.row(j));
      //! first-of-group: if (h % group == 0) add(dk.head(shared).row(j), 1, dk_h.row(j));
      //! mean-of-group: add(dk.head(shared).row(j), 1.0 / group, dk_h.row(j));
      add(dv.head(shared).row(j), 1, dv_h.row(j));
      //! last-head: fill(dv.head(shared).row(j), 0); add(dv.head(shared).row(j), 1, dv_h.row(j));
      //! first-of-group: if (h % group == 0) add(dv.head(shared).row(j), 1, dv_h.row(j));
      //! mean-of-group: add(dv.head(shared).row(j), 1.0 / group, dv_h.row(j));
    }
  }
  // END SOLUTION
}

// CHECK
namespace check {

struct Functions {
  void (*grouped_forward)(Heads out, Matrix lse, ConstHeads q, ConstHeads k, ConstHeads v, bool causal);
  void (*grouped_backward)(Heads dq, Heads dk, Heads dv, ConstHeads dout, ConstHeads q, ConstHeads k,
                           ConstHeads v, ConstHeads out, ConstMatrix lse, bool causal);
};

const std::vector<Mistake> kMistakes = {
    {"interleaved", "query head h reads key/value head h % Hkv; groups are contiguous: h / (Hq / Hkv)"},
    {"first-head", "every query head reads key/value head 0; that is right for MQA alone"},
    {"interleaved-backward",
     "in backward, query head h belongs to key/value head h % Hkv; groups are contiguous"},
    {"last-head",
     "dk and dv are those of the last head of each group alone; they are the sum over the group"},
    {"first-of-group",
     "dk and dv are those of the first head of each group alone; they are the sum over the group"},
    {"mean-of-group", "dk and dv are the mean over the group; they are the sum"},
};

const std::vector<Case> kCases = {{.tq = 3, .tk = 3, .d = 1, .hq = 2, .hkv = 2, .seed = 1},
                                  {.tq = 5, .tk = 7, .d = 4, .hq = 6, .hkv = 2, .causal = true, .seed = 2},
                                  {.tq = 5, .tk = 7, .d = 59, .hq = 4, .hkv = 1, .seed = 3},
                                  {.tq = 9, .tk = 6, .d = 3, .hq = 6, .hkv = 3, .causal = true, .seed = 4},
                                  {.tq = 9, .tk = 64, .d = 8, .hq = 8, .hkv = 2, .seed = 5}};

Tensors inputs(const Case& c) { return attention_inputs(c); }

Tensors run(const Functions& f, const Case& c, Tensors& in) {
  Tensors out = {Tensor("lse", c.hq, c.tq), Tensor::heads_of("out", c.hq, c.tq, c.d)};
  {
    const MemoryLimit limit(static_cast<std::size_t>(c.hq) * c.tk * c.d,
                            "K and V are not repeated for each head");
    f.grouped_forward(out[1].heads_view(), out[0].matrix(), in[0].heads_view(), in[1].heads_view(),
                      in[2].heads_view(), c.causal);
    limit.check();
  }
  const Forward forward(c, in);
  for (Tensor& gradient : attention_gradients(c)) out.push_back(std::move(gradient));
  f.grouped_backward(out[3].heads_view(), out[4].heads_view(), out[2].heads_view(), in[3].heads_view(),
                     in[0].heads_view(), in[1].heads_view(), in[2].heads_view(), forward.out.heads_view(),
                     forward.lse.matrix(), c.causal);
  return out;
}

double loss(const Case& c, Tensors& in) { return attention_loss(c, in); }

}  // namespace check
