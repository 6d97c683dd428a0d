// Exercise 5: flash attention forward. The page is 05_flash_forward.md.
#include "course.h"

// q (Tq, D), k and v (Tk, D) -> out (Tq, D) and lse (Tq), overwritten. Queries in tiles of `tile_q` rows, keys in
// tiles of `tile_k`; the last tile may be smaller. Tiles that no query of theirs sees are not looked at.
void flash_forward(Matrix out, Vector lse, ConstMatrix q, ConstMatrix k, ConstMatrix v, bool causal,
                   int tile_q, int tile_k) {
  // BEGIN SOLUTION
  const double scale = 1 / std::sqrt(q.cols);
  //! scale-forgotten: const double scale = 1;
  std::vector<double> m(tile_q), l(tile_q), s(tile_k);
  const auto visible = [&](int i) { return causal ? std::max(0, i + k.rows - q.rows + 1) : k.rows; };
  //! top-left: const auto visible = [&](int i) { return causal ? std::min(i + 1, k.rows) : k.rows; };
  for (int q0 = 0; q0 < q.rows; q0 += tile_q) {
    const int q1 = std::min(q0 + tile_q, q.rows);
    std::fill(m.begin(), m.end(), -kInfinity);
    std::fill(l.begin(), l.end(), 0);
    for (int i = q0; i < q1; ++i) fill(out.row(i), 0);
    for (int k0 = 0; k0 < visible(q1 - 1); k0 += tile_k) {
      //! not-skipped: for (int k0 = 0; k0 < k.rows; k0 += tile_k) {
      //! ragged-end: for (int k0 = 0; k0 + tile_k <= visible(q1 - 1); k0 += tile_k) {
      for (int i = q0, r = 0; i < q1; ++i, ++r) {
        const int k1 = std::min(k0 + tile_k, visible(i));
        //! not-cut: const int k1 = std::min(k0 + tile_k, k.rows);
        //! not-skipped: const int k1 = std::min(k0 + tile_k, k.rows);
        double new_m = m[r];
        for (int j = k0; j < k1; ++j) {
          s[j - k0] = scale * dot(q.row(i), k.row(j));
          //! not-skipped: s[j - k0] = scale * dot(q.row(i), k.row(j)); if (j >= visible(i)) s[j - k0] = -kInfinity;
          new_m = std::max(new_m, s[j - k0]);
        }
        const double alpha = k1 > k0 ? std::exp(m[r] - new_m) : 1;
        //! not-skipped: const double alpha = new_m > -kInfinity ? std::exp(m[r] - new_m) : 1;
        l[r] *= alpha;
        //! l-not-rescaled:
        for (int c = 0; c < q.cols; ++c) out(i, c) *= alpha;
        //! o-not-rescaled:
        for (int j = k0; j < k1; ++j) {
          const double p = std::exp(s[j - k0] - new_m);
          //! not-skipped: const double p = j < visible(i) ? std::exp(s[j - k0] - new_m) : 0;
          l[r] += p;
          add(out.row(i), p, v.row(j));
        }
        m[r] = new_m;
      }
    }
    for (int i = q0, r = 0; i < q1; ++i, ++r) {
      lse(i) = m[r] + std::log(l[r]);
      //! lse-without-maximum: lse(i) = std::log(l[r]);
      for (int c = 0; c < q.cols && l[r] > 0; ++c) out(i, c) /= l[r];
      //! not-divided:
      //! blind-row: for (int c = 0; c < q.cols; ++c) out(i, c) /= l[r];
    }
  }
  // END SOLUTION
}

// CHECK
namespace check {

struct Functions {
  void (*flash_forward)(Matrix out, Vector lse, ConstMatrix q, ConstMatrix k, ConstMatrix v, bool causal,
                        int tile_q, int tile_k);
};

const std::vector<Mistake> kMistakes = {
    {"scale-forgotten", "the scores are not multiplied by scale = 1/sqrt(D)"},
    {"top-left",
     "the causal mask is aligned top left, j <= i; here the last query sees the last key: "
     "j <= i + Tk - Tq"},
    {"ragged-end", "the last tile of keys is left out if it is not a whole one"},
    {"not-cut", "in a tile through which the diagonal passes, masked keys are seen too"},
    {"l-not-rescaled", "l is not multiplied by exp(old m - m) when a tile brings a larger score"},
    {"o-not-rescaled", "out is not multiplied by exp(old m - m) when a tile brings a larger score"},
    {"lse-without-maximum", "lse is log(l) alone; it is m + log(l)"},
    {"not-divided", "out is not divided by l at the end"},
    {"blind-row", "a row that sees no key is divided by l = 0"},
    {"not-skipped", "tiles above the causal diagonal are computed and masked; they should not be looked at"},
};

const std::vector<Case> kCases = tiled_cases();

Tensors inputs(const Case& c) { return attention_inputs(c); }

Tensors run(const Functions& f, const Case& c, Tensors& in) {
  Tensors out = {Tensor("lse", c.tq), Tensor("out", c.tq, c.d)};
  std::int64_t reads = 0;
  const MemoryLimit limit(c, "flash attention keeps one tile");
  f.flash_forward(out[1].matrix(), out[0].vector(), in[0].matrix(), in[1].counted(&reads), in[2].matrix(),
                  c.causal, c.tile_q, c.tile_k);
  limit.check();
  out.push_back(reads_of_keys(c, reads));
  return out;
}

}  // namespace check
