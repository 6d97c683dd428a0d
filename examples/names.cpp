// Names, letter by letter, with dots between: a table of bigrams, then an MLP that looks back three letters.
#include <cstdio>
#include <string_view>
#include <vector>

#include "tilegrad/tilegrad.h"

using namespace tilegrad;

constexpr std::string_view kNames =
    "...emma...olivia...ava...isabella...sophia...charlotte...mia...amelia...harper...evelyn...abigail..."
    "emily...mila...ella...avery...sofia...camila...aria...luna...grace...chloe...layla...nora...lily...";
constexpr Index kLetters = 27, kContext = 3;
struct Mlp {
  nn::Embedding letters{kLetters, 8, 1.0, Dtype::f32, RandomKey{1}};
  nn::Linear hidden{kContext * 8, 64, true, 0.2, Dtype::f32, RandomKey{2}};
  nn::Linear output{64, kLetters, true, 0.1, Dtype::f32, RandomKey{3}};
  Var operator()(const Tensor& ids) const {  // (N, 3) -> (N, 27)
    return output(tanh(hidden(reshape(letters(ids), {ids.dim(0), kContext * 8}))));
  }
  void visit(auto&& f) { f("letters", letters), f("hidden", hidden), f("output", output); }
};

int main() {
  std::vector<std::int32_t> ids, context, last, next;
  for (const char c : kNames) ids.push_back(c == '.' ? 0 : c - 'a' + 1);
  for (std::size_t i = kContext; i < ids.size(); ++i) {
    if (ids[i] == 0 && ids[i - 1] == 0) continue;
    context.insert(context.end(), &ids[i - kContext], &ids[i]);
    last.push_back(ids[i - 1]);
    next.push_back(ids[i]);
  }
  const auto tensor = [](const Shape& shape, auto& v) { return Tensor::from<std::int32_t>(shape, v); };
  const Index n = std::ssize(next);
  const Tensor inputs = tensor({n, kContext}, context), targets = tensor({n}, next);
  Tensor counts = Tensor::full({kLetters, kLetters}, Dtype::f32, 1e-3);
  for (Index i = 0; i < n; ++i) counts.mut<float>()[last[i] * kLetters + next[i]] += 1;
  const Var rows = embedding(counts / broadcast(sum(counts, 1), 1, kLetters), tensor({n}, last));
  const double bigrams = mean(-log(gather(rows, targets))).value().item();
  Mlp model;
  nn::AdamW optimizer(nn::parameters(model), {.weight_decay = 0});
  for (int step = 0; step < 200; ++step) {
    Tape tape;
    tape.backward(cross_entropy(model(inputs), targets));
    optimizer.step(0.02);
    nn::zero_grad(nn::parameters(model));
  }
  const double loss = cross_entropy(model(inputs), targets).value().item();
  std::printf("loss of bigrams %.3f, of the MLP %.3f, which makes up\n", bigrams, loss);
  std::vector<std::int32_t> seen(kContext, 0);
  for (std::uint64_t draw = 0; draw < 40; ++draw) {
    // The largest of logits with Gumbel noise, −ln(−ln u), is a draw from their softmax.
    const Var u = 0.5 + 0.5 * Var(Tensor::uniform({1, kLetters}, Dtype::f32, RandomKey{4}.fold(draw)));
    const auto id = static_cast<std::int32_t>(argmax(model(tensor({1, 3}, seen)) - log(-log(u))).item());
    std::putchar(id > 0 ? 'a' + id - 1 : '\n');
    seen = id > 0 ? std::vector{seen[1], seen[2], id} : std::vector<std::int32_t>(kContext, 0);
  }
  return loss < bigrams ? 0 : 1;
}
