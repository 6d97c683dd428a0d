#pragma once

#include <array>
#include <concepts>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "tilegrad/autograd/input_grads.h"
#include "tilegrad/autograd/var.h"

namespace tilegrad {

/// How an op goes backward. A rule is a plain aggregate: a name, what it saved, and backward, which reads the
/// gradient of the op's output and writes those of its inputs.
template <class R>
concept Rule = requires(R rule, const Tensor& dy, InputGrads& dx) {
  { R::name } -> std::convertible_to<std::string_view>;
  rule.backward(dy, dx);
};

/// The same for an op with several outputs; a gradient that nobody contributed to is not defined().
template <class R>
concept MultiRule = requires(R rule, std::span<const Tensor> dys, InputGrads& dx) {
  { R::name } -> std::convertible_to<std::string_view>;
  rule.backward(dys, dx);
};

/// One recorded op. NodeOf<Rule> below is the only derived class.
class Node {
 public:
  using Cells = std::vector<std::shared_ptr<GradCell>>;

  Node(Cells input_cells, Cells output_cells)
      : inputs(std::move(input_cells)), outputs(std::move(output_cells)) {}
  virtual ~Node() = default;
  virtual std::string_view name() const = 0;
  virtual void backward(std::span<const Tensor> dys, InputGrads& dx) = 0;

  const Cells inputs;  ///< null: this input needs no gradient
  const Cells outputs;
};

/// Records the ops that run on this thread while it lives, and walks them back once.
///
/// Invariants:
/// (1) Nodes stand in execution order, so walking from the back meets every node after all users of its
///     outputs: no sort, no recursion, no visited set.
/// (2) Backward consumes the tape: a node, and with it all it saved, is destroyed as soon as it has run.
/// (3) A node holds the gradient cells of its inputs and outputs, never their values.
///
/// Tapes nest: the innermost one records. They may be destroyed in any order, and on any thread: what a tape
/// holds is then freed by the thread that made it, when it next runs an op or ends.
///
/// Threads have tapes of their own. An op on a value that a tape of another thread is recording is an Error,
/// since the gradient would be lost, and so is backward on another thread. An op on leaves alone, on a thread
/// without a tape, computes a constant, as it does everywhere.
///
/// After an Error in backward the tape is used up. A leaf holds what had arrived at it by then, or nothing, in
/// memory of its own: forget it with zero_grad().
class Tape {
 public:
  struct Options {
    /// Look for NaN and Inf in every value and gradient, and name the op that made the first one. Inner tapes
    /// inherit it.
    bool detect_anomaly = false;
  };

  Tape() : Tape(Options{}) {}
  explicit Tape(Options options);
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// Gradients of `root`, a scalar recorded here, for all leaves that it depends on; they add to what the
  /// leaves hold, and share memory with nothing else. Throws if the tape has been used, root was not recorded
  /// on it, or a walk on another thread adds to one of the leaves at the same time.
  void backward(const Var& root);
  /// The same for any root, from the gradient `cotangent` of root's shape and dtype.
  void backward(const Var& root, const Tensor& cotangent);

  /// Number of ops recorded and not yet walked.
  Index size() const;

 private:
  struct State;

 public:
  /// Stops the innermost tape from recording while it lives, on the thread that made it. It may outlive that
  /// tape.
  class Pause {
   public:
    Pause();
    ~Pause();
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;
    /// Whether an op ran that would have been recorded.
    bool skipped_any() const { return skipped_; }

   private:
    friend class Recorder;
    std::shared_ptr<State> tape_;
    Pause* outer_;
    bool skipped_ = false;
  };

  /// What this thread is doing: forward, unless a tape walks back; during that walk, recompute while
  /// checkpoint() or recomputed() runs a function again on a tape of its own.
  enum class Pass { forward, backward, recompute };
  static Pass pass();

  /// The tape that would record now: nullptr if there is none, it is paused, or it has been used.
  static Tape* recording();

 private:
  friend class Recorder;

  std::shared_ptr<State> state_;
};

/// When an op is recorded. input_tracked: only if an input needs a gradient. always: even without one,
/// because the rule itself refers to tracked values, as the functions that checkpoint() keeps do.
enum class When { input_tracked, always };

/// How many of a rule's outputs have to be finite when anomalies are looked for: all, unless it names the
/// first `checked_outputs`.
template <class R, std::size_t N>
constexpr std::size_t checked_outputs() {
  if constexpr (requires { R::checked_outputs; }) {
    return R::checked_outputs;
  } else {
    return N;
  }
}

/// The part of record() that does not depend on the rule.
class Recorder {
 public:
  /// Decides whether the op is recorded: a tape records, and an input is tracked or `always`. Throws if an
  /// input was recorded on a tape that is not active, or if anomalies are looked for and one of `checked` has
  /// one.
  Recorder(std::string_view op, std::span<const Var> inputs, std::span<const Tensor> checked, When when);

  bool active() const { return tape_ != nullptr; }
  /// Fresh cells for the outputs.
  Node::Cells output_cells(std::span<const Tensor> outputs) const;
  Node::Cells input_cells() const;
  void push(std::unique_ptr<Node> node);

 private:
  Tape::State* tape_ = nullptr;
  std::span<const Var> inputs_;
  Index saved_before_;  // by the rules of this thread, before this one
};

template <class R>
class NodeOf final : public Node {
 public:
  NodeOf(R rule, Cells input_cells, Cells output_cells)
      : Node(std::move(input_cells), std::move(output_cells)), rule_(std::move(rule)) {}
  std::string_view name() const override { return R::name; }
  void backward(std::span<const Tensor> dys, InputGrads& dx) override {
    if constexpr (Rule<R>) {
      rule_.backward(dys[0], dx);
    } else {
      rule_.backward(dys, dx);
    }
  }

 private:
  R rule_;
};

/// Makes the outputs of an op part of the computation. `make_rule()` is called, and so anything saved, only
/// if the op is recorded: inference saves nothing.
template <std::size_t N, class F>
std::array<Var, N> record(const std::array<Tensor, N>& ys, std::span<const Var> inputs, F&& make_rule,
                          When when = When::input_tracked) {
  using R = std::invoke_result_t<F>;
  static_assert(Rule<R> || MultiRule<R>, "make_rule() returns no rule");
  Recorder recorder(R::name, inputs, std::span(ys).template first<checked_outputs<R, N>()>(), when);
  std::array<Var, N> outputs;
  if (!recorder.active()) {
    for (std::size_t i = 0; i < N; ++i) outputs[i] = Var(ys[i]);
    return outputs;
  }
  Node::Cells cells = recorder.output_cells(ys);
  for (std::size_t i = 0; i < N; ++i) outputs[i] = Var(ys[i], cells[i]);
  recorder.push(std::make_unique<NodeOf<R>>(make_rule(), recorder.input_cells(), std::move(cells)));
  return outputs;
}

/// The usual case of one output.
template <class F>
Var record(const Tensor& y, std::span<const Var> inputs, F&& make_rule, When when = When::input_tracked) {
  return record<1>(std::array<Tensor, 1>{y}, inputs, std::forward<F>(make_rule), when)[0];
}
template <class F>
Var record(const Tensor& y, std::initializer_list<Var> inputs, F&& make_rule) {
  return record(y, std::span<const Var>(inputs.begin(), inputs.size()), std::forward<F>(make_rule));
}

/// For an op without a backward: throws, naming it, if `input` is tracked and a tape records, since the
/// gradient would be lost silently. Pass input.detach() where that is meant.
void check_no_gradient_path(std::string_view op, const Var& input);

}  // namespace tilegrad
