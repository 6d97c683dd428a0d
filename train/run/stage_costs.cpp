#include "tilegrad/train/run/stage_costs.h"

#include <chrono>
#include <functional>

#include "tilegrad/autograd/checkpoint.h"
#include "tilegrad/autograd/deferral.h"
#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad::train {

namespace {

using Stage = std::function<Var(const Var& x)>;
using Clock = std::chrono::steady_clock;

Index nanoseconds_since(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
}

Index live() { return memory::usage().live; }

// Calls f and returns how far the live bytes rose above `base` on the way.
template <class F>
Index peak_above(Index base, F&& f) {
  memory::reset_peak();
  f();
  return memory::usage().peak - base;
}

// The input as a leaf, if a gradient passes through it; tokens have none.
Var input_of(const Tensor& x) { return x.dtype() == Dtype::i32 ? Var(x) : Var::leaf(x); }

// The end of a stage's own tape. In the full model only the tape holds the gradient of a stage's output. To
// measure the same, a scale-by-1 op is appended, so that backward creates that gradient instead of receiving it
// from the caller.
struct Ending {
  Tensor cotangent;
  Var root;

  explicit Ending(const Var& y) : cotangent(Tensor::full(y.shape(), y.dtype(), 1)), root(scale(y, 1)) {}
  Index bytes() const { return cotangent.bytes() + root.value().bytes(); }
};

// Counts the ops that backward runs again.
class RecomputedOps final : public OpListener {
 public:
  Index count = 0;

 private:
  void begin(std::string_view) override { count += Tape::pass() == Tape::Pass::recompute ? 1 : 0; }
  void end() override {}
  void recorded(std::string_view, Index) override {}
};

// Records and walks back stage(x) and returns the peak of the walk.
Index walk_back(const Stage& stage, const Tensor& x, Index base, StageCost* cost) {
  Tape tape;
  const Var in = input_of(x);
  const auto start = Clock::now();
  Var y;
  const Index recorded = peak_above(base, [&] { y = stage(in); });
  const Index time = nanoseconds_since(start);
  const Index ops = tape.size();
  const Ending ending(y);
  y = Var();
  const Index kept = live() - base - ending.bytes();
  RecomputedOps recomputed;
  const ListenScope listening(recomputed);
  const Index backward =
      peak_above(base + ending.bytes(), [&] { tape.backward(ending.root, ending.cotangent); });
  if (cost != nullptr) {
    cost->saved = kept;
    cost->recorded_peak = recorded;
    cost->nanoseconds = time;
    cost->ops = ops;
    cost->recomputed = recomputed.count;
  }
  return backward;
}

// Time and ops of the stage as the last one of a checkpoint that runs it again.
void measure_replay(const Stage& stage, const Tensor& x, StageCost& cost) {
  const Tape tape;
  const Var in = input_of(x);
  const auto start = Clock::now();
  Deferral deferral;
  stage(in);
  const Index left_out = deferral.finish();
  cost.replay_nanoseconds = nanoseconds_since(start);
  cost.replay_ops = tape.size() - left_out;
}

StageCost measure(const Stage& stage, const Tensor& x) {
  StageCost cost;
  // The first run also allocates the scratch memory that threads keep.
  cost.output = stage(x).value().bytes();
  const Index base = live();
  cost.forward_peak = peak_above(base, [&] { stage(x); });
  cost.backward_peak = walk_back(stage, x, base, &cost);
  cost.gradients = live() - base;
  return cost;
}

StageCost measure_block(nn::Transformer& model, Index layer, const Tensor& x,
                        const nn::ForwardOptions& forward) {
  const Stage block = [&](const Var& in) { return model.run_block(in, layer, forward); };
  const auto own = parameters(model.blocks[layer]);
  StageCost cost = measure(block, x);
  measure_replay(block, x, cost);
  zero_grad(own);  // so that the second walk allocates them again
  cost.replay_peak = walk_back([&](const Var& in) { return checkpoint(block, in); }, x, live(), nullptr);
  return cost;
}

}  // namespace

ChainCost measure_stages(nn::Transformer& model, const Tensor& tokens, const Tensor& targets,
                         const nn::ForwardOptions& forward) {
  zero_grad(parameters(model));
  ChainCost chain = {.resident = live()};
  const Stage embed = [&](const Var&) { return model.embed(tokens, forward); };
  const Stage head = [&](const Var& x) { return model.head_loss(x, targets); };
  std::vector<Tensor> inputs = {model.embed(tokens, forward).value()};
  for (Index layer = 0; layer < model.config.layers; ++layer) {
    inputs.push_back(model.run_block(inputs.back(), layer, forward).value());
  }
  // From the back, as the gradients of a step come into being; a tied head shares its own with the embedding.
  chain.epilogue = measure(head, inputs.back());
  for (Index layer = model.config.layers; layer-- > 0;) {
    inputs.pop_back();
    chain.blocks.insert(chain.blocks.begin(), measure_block(model, layer, inputs.back(), forward));
  }
  chain.prologue = measure(embed, tokens);
  zero_grad(parameters(model));
  return chain;
}

}  // namespace tilegrad::train
