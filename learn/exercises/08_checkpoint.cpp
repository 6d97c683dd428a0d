// Exercise 8: a checkpoint. The page is 08_checkpoint.md.
#include "course.h"

// y = f(x), with dropout by a key from `keys`. Of all that f computes on the way, nothing is kept but what
// checkpoint_backward needs to start again.
Values checkpoint_forward(Kept& kept, Function& f, const Values& x, Keys& keys) {
  // BEGIN SOLUTION
  kept.x = x;
  kept.key = keys.next();
  return f.forward(x, kept.key, nullptr);
  //! everything-kept: return f.forward(x, kept.key, &kept.saved);
  //! output-kept: return kept.y = f.forward(x, kept.key, nullptr);
  //! run-twice-in-forward: f.forward(x, kept.key, nullptr); return f.forward(x, kept.key, nullptr);
  // END SOLUTION
}

// dx from dy, by running f once more, with the very same dropout.
Values checkpoint_backward(const Kept& kept, Function& f, const Values& dy, Keys& keys) {
  // BEGIN SOLUTION
  (void)keys;  // a fresh key would be another mask
  Saved saved;
  f.forward(kept.x, kept.key, &saved);
  //! another-mask: f.forward(kept.x, keys.next(), &saved);
  //! no-key: f.forward(kept.x, 0, &saved);
  //! everything-kept:
  //! run-twice-in-backward: f.forward(kept.x, kept.key, &saved); f.forward(kept.x, kept.key, &saved);
  //! recomputed-from-output: f.forward(f.forward(kept.x, kept.key, nullptr), kept.key, &saved);
  return f.backward(dy, saved);
  //! everything-kept: return f.backward(dy, kept.saved);
  // END SOLUTION
}

// CHECK
namespace check {

struct Functions {
  Values (*checkpoint_forward)(Kept& kept, Function& f, const Values& x, Keys& keys);
  Values (*checkpoint_backward)(const Kept& kept, Function& f, const Values& dy, Keys& keys);
};

const std::vector<Mistake> kMistakes = {
    {"everything-kept", "what f saved in forward is kept until backward: that is no checkpoint"},
    {"output-kept", "the output of f is kept too, and backward does not need it"},
    {"run-twice-in-forward", "f runs twice in forward"},
    {"another-mask", "backward runs f with a fresh key: another dropout mask than in forward"},
    {"no-key", "backward runs f with key 0 instead of the key of forward: another dropout mask"},
    {"run-twice-in-backward", "f runs twice in backward; once more is enough"},
    {"recomputed-from-output", "backward runs f on the output of f instead of on its input"},
};

const std::vector<Case> kCases = {{.title = "3 values, no dropout", .d = 3, .seed = 1},
                                  {.title = "59 values, dropout", .d = 59, .seed = 2, .dropout = 0.3},
                                  {.title = "1 value, dropout", .d = 1, .seed = 3, .dropout = 0.5},
                                  {.title = "59 values, dropout, x changes after forward",
                                   .d = 59,
                                   .seed = 4,
                                   .dropout = 0.3,
                                   .changes = true}};
const double kTolerance = 0;  // the same bits

// Counts up from a number of the case.
class CountedKeys final : public Keys {
 public:
  explicit CountedKeys(std::uint64_t seed) : key_(100 * seed) {}
  std::uint64_t next() override { return ++key_; }

 private:
  std::uint64_t key_;
};

// Three layers, each x -> dropout(tanh(w ⊙ x + the mean of x)). Counts how often it runs.
class Layers final : public Function {
 public:
  explicit Layers(const Case& c) : dropout_(c.dropout), weights_(Draw(c.seed + 50).tensor("w", c.d).data) {}

  Values forward(const Values& x, std::uint64_t key, Saved* saved) override {
    ++runs;
    State state;
    Values y = x;
    for (std::uint64_t layer = 0; layer < 3; ++layer) {
      Draw draw(key * 10 + layer);
      Values t(y.size()), keep(y.size());
      double mean = 0;
      for (const double value : y) mean += value / static_cast<double>(y.size());
      for (std::size_t i = 0; i < y.size(); ++i) {
        t[i] = std::tanh(weights_[i] * y[i] + mean);
        keep[i] = draw.uniform() < dropout_ ? 0 : 1 / (1 - dropout_);
        y[i] = keep[i] * t[i];
      }
      state.push_back({std::move(t), std::move(keep)});
    }
    if (saved != nullptr) saved->state = std::make_shared<State>(std::move(state));
    return y;
  }

  Values backward(const Values& dy, const Saved& saved) override {
    if (saved.state == nullptr)
      throw course::Misuse{"f.backward was given a Saved that no forward has filled"};
    Values dx = dy;
    const auto& state = *static_cast<const State*>(saved.state.get());
    for (auto layer = state.rbegin(); layer != state.rend(); ++layer) {
      double sum = 0;
      for (std::size_t i = 0; i < dx.size(); ++i) {
        dx[i] *= layer->keep[i] * (1 - layer->t[i] * layer->t[i]);
        sum += dx[i] / static_cast<double>(dx.size());
      }
      for (std::size_t i = 0; i < dx.size(); ++i) dx[i] = weights_[i] * dx[i] + sum;
    }
    return dx;
  }

  int runs = 0;

 private:
  struct Layer {
    Values t, keep;
  };
  using State = std::vector<Layer>;
  double dropout_;
  Values weights_;
};

Tensors inputs(const Case& c) {
  Draw draw(c.seed);
  return {draw.tensor("x", c.d), draw.tensor("dy", c.d)};
}

Tensors run(const Functions& f, const Case& c, Tensors& in) {
  Tensors out = {Tensor("y", c.d),
                 Tensor("runs of f in forward", 1),
                 Tensor("numbers kept", 1),
                 Tensor("whether what f saved is kept", 1),
                 Tensor("runs of f in backward", 1),
                 Tensor("dx", c.d, "x")};
  Layers layers(c);
  CountedKeys keys(c.seed);
  Kept kept;
  Values x = in[0].data;
  out[0].data = f.checkpoint_forward(kept, layers, x, keys);
  out[1].data = {1.0 * layers.runs};
  out[2].data = {1.0 * static_cast<double>(kept.x.size() + kept.y.size())};
  out[3].data = {kept.saved.state != nullptr ? 1.0 : 0.0};
  if (c.changes) std::fill(x.begin(), x.end(), 0);
  layers.runs = 0;
  out[5].data = f.checkpoint_backward(kept, layers, in[1].data, keys);
  out[4].data = {1.0 * layers.runs};
  return out;
}

double loss(const Case& c, Tensors& in) {
  Layers layers(c);
  const Values y = layers.forward(in[0].data, CountedKeys(c.seed).next(), nullptr);
  double sum = 0;
  for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * in[1].data[i];
  return sum;
}

}  // namespace check
