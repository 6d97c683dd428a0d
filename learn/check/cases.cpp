// The problems of the exercises, and what surrounds the learner's functions in them.
#include <malloc.h>

#include <cstdlib>
#include <new>

#include "check.h"

namespace check {

using course::kInfinity;

std::string Case::describe() const {
  if (!title.empty()) return title;
  if (tq == 1 && d == 1 && hq == 1 && tile_q == 0 && !causal)
    return std::to_string(tk) + (tk == 1 ? " element" : " elements");
  std::string text = std::to_string(tq) + " queries, " + std::to_string(tk) + " keys, D " + std::to_string(d);
  if (hq > 1) text += ", " + std::to_string(hq) + " query and " + std::to_string(hkv) + " key/value heads";
  if (causal) text += ", causal";
  if (tile_q > 0)
    text += ", tiles of " + std::to_string(tile_q) + " queries and " + std::to_string(tile_k) + " keys";
  return text;
}

Tensor::Tensor(std::string name_, int rows_, int cols_, std::string gradient_of_)
    : name(std::move(name_)),
      gradient_of(std::move(gradient_of_)),
      rows(rows_),
      cols(cols_),
      data(static_cast<std::size_t>(rows_) * static_cast<std::size_t>(cols_), 777) {
}  // whoever forgets one shows

Tensor Tensor::heads_of(std::string name, int heads, int time, int dim, std::string gradient_of) {
  Tensor t(std::move(name), time, heads * dim, std::move(gradient_of));
  t.heads = heads;
  t.cols = dim;
  return t;
}

std::string Tensor::place(std::size_t e) const {
  const auto at = static_cast<int>(e);
  if (heads == 1 && rows == 1) return cols == 1 ? "" : "element " + std::to_string(at);
  const std::string where =
      "row " + std::to_string(at / (heads * cols)) + ", column " + std::to_string(at % cols);
  return heads == 1 ? where : "head " + std::to_string(at / cols % heads) + ", " + where;
}

double Draw::uniform() {
  std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
}

Tensor Draw::tensor(std::string name, int rows, int cols) {
  Tensor t(std::move(name), rows, cols);
  for (double& x : t.data) x = 4 * uniform() - 2;
  return t;
}

// --- attention --------------------------------------------------------------------------------------------

std::vector<Case> attention_cases() {
  return {{.tq = 1, .tk = 2, .d = 3, .seed = 1},
          {.tq = 5, .tk = 7, .d = 59, .seed = 2},
          {.tq = 7, .tk = 7, .d = 4, .causal = true, .seed = 3},
          {.tq = 5, .tk = 9, .d = 1, .causal = true, .seed = 4},
          {.tq = 9, .tk = 5, .d = 3, .causal = true, .seed = 5},  // four queries that see nothing
          {.tq = 65, .tk = 33, .d = 7, .seed = 6}};
}

std::vector<Case> tiled_cases() {
  std::vector<Case> cases = attention_cases();
  for (Case& c : cases) {
    c.tile_q = 3;
    c.tile_k = 2;
  }
  cases.push_back({.tq = 5, .tk = 7, .d = 5, .tile_q = 16, .tile_k = 16, .seed = 7});  // one tile, not full
  cases.push_back({.tq = 113, .tk = 203, .d = 5, .causal = true, .tile_q = 16, .tile_k = 32, .seed = 8});
  return cases;
}

Tensors attention_inputs(const Case& c) {
  Draw draw(c.seed);
  const auto heads = [&](const char* name, int time, int count) {
    Tensor t = Tensor::heads_of(name, count, time, c.d);
    t.data = draw.tensor(name, time, count * c.d).data;
    return t;
  };
  return {heads("q", c.tq, c.hq), heads("k", c.tk, c.hkv), heads("v", c.tk, c.hkv),
          heads("dout", c.tq, c.hq)};
}

Tensors attention_gradients(const Case& c) {
  return {Tensor::heads_of("dv", c.hkv, c.tk, c.d, "v"), Tensor::heads_of("dq", c.hq, c.tq, c.d, "q"),
          Tensor::heads_of("dk", c.hkv, c.tk, c.d, "k")};
}

Forward::Forward(const Case& c, const Tensors& in)
    : out(Tensor::heads_of("out", c.hq, c.tq, c.d)), lse("lse", c.hq, c.tq), causal_(c.causal) {
  for (int h = 0; h < c.hq; ++h) {
    const int shared = h / (c.hq / c.hkv);
    course::head_forward(out.heads_view().head(h), lse.matrix().row(h), in[0].heads_view().head(h),
                         in[1].heads_view().head(shared), in[2].heads_view().head(shared), c.causal);
  }
}

Tensor Forward::probabilities(const Tensors& in) const {
  const Tensor &q = in[0], &k = in[1];
  Tensor p("p", q.rows, k.rows);
  for (int i = 0; i < q.rows; ++i) {
    for (int j = 0; j < k.rows; ++j) {
      const double s = dot(q.matrix().row(i), k.matrix().row(j)) / std::sqrt(q.cols);
      const bool seen = !causal_ || j <= i + k.rows - q.rows;
      p.matrix()(i, j) = seen ? std::exp(s - lse.vector()(i)) : 0;
    }
  }
  return p;
}

double attention_loss(const Case& c, Tensors& in) {
  const Forward forward(c, in);
  return dot(forward.out.vector(), in[3].vector());
}

Tensor reads_of_keys(const Case& c, std::int64_t reads) {
  std::int64_t allowed = 0;
  for (int q0 = 0; q0 < c.tq; q0 += c.tile_q) {
    const int q1 = std::min(q0 + c.tile_q, c.tq);
    const int seen = c.causal ? std::max(0, q1 + c.tk - c.tq) : c.tk;
    const int tiles = (seen + c.tile_k - 1) / c.tile_k;
    allowed += static_cast<std::int64_t>(q1 - q0) * std::min(tiles * c.tile_k, c.tk) * c.d;
  }
  Tensor beyond("the number of reads of K beyond the visible tiles", 1);
  beyond.data = {static_cast<double>(std::max<std::int64_t>(0, reads - allowed))};
  return beyond;
}

// --- memory -----------------------------------------------------------------------------------------------

namespace {

std::size_t live_bytes = 0, peak_bytes = 0;
constexpr std::size_t kTooFewToMean = 2048;  // a small problem is no reason to save memory

}  // namespace

MemoryLimit::MemoryLimit(const Case& c, const char* reason)
    : MemoryLimit(static_cast<std::size_t>(c.tq) * c.tk / 2, reason) {}

MemoryLimit::MemoryLimit(std::size_t numbers, const char* reason) : numbers_(numbers), reason_(reason) {
  live_bytes = peak_bytes =
      1 << 30;  // what was there before and is freed meanwhile does not make it negative
}

MemoryLimit::~MemoryLimit() = default;

void MemoryLimit::check() const {
  const std::size_t numbers = (peak_bytes - (1 << 30)) / 8;
  if (numbers < std::max(numbers_, kTooFewToMean)) return;
  throw course::Misuse{"too much memory: " + std::to_string(numbers) + " numbers were allocated at once, " +
                       std::to_string(numbers_) + " or more are too many; " + reason_};
}

}  // namespace check

// Every allocation of the check passes here, to be counted.
void* operator new(std::size_t size) {
  void* const memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  check::live_bytes += malloc_usable_size(memory);
  check::peak_bytes = std::max(check::peak_bytes, check::live_bytes);
  return memory;
}
void operator delete(void* memory) noexcept {
  check::live_bytes -= malloc_usable_size(memory);
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }
