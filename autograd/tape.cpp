#include "tilegrad/autograd/tape.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <utility>

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/kernels/elementwise.h"

namespace tilegrad {

namespace {

// Takes `link` out of a chain that begins at `first` and goes on through `outer`.
template <class T>
void unlink(T*& first, T* link, T* T::*outer) {
  T** at = &first;
  while (*at != nullptr && *at != link) at = &((*at)->*outer);
  if (*at != nullptr) *at = link->*outer;
}

std::uint64_t next_tape() {
  static std::atomic<std::uint64_t> last = 0;
  return ++last;
}

bool is_finite(const Tensor& t) {
  if (!is_float(t.dtype())) return true;
  if (is_narrow(t.dtype())) return is_finite(t.cast(Dtype::f32));
  return with_float_type("all_finite", t.dtype(),
                         [&]<class T>() { return kernels::all_finite<T>(t.view<T>()); });
}

}  // namespace

// The state of a tape. The tape and the chain of its thread both own it, because the tape may be destroyed on another
// thread while its own is still working.
struct Tape::State {
  State(Tape& tape, Options tape_options)
      : owner(&tape),
        options(tape_options),
        mark(new TapeMark{.number = next_tape(), .thread = thread_number()}),
        outer(innermost()) {
    if (outer != nullptr) options.detect_anomaly |= outer->options.detect_anomaly;
  }
  ~State() { drop_nodes(); }

  /// The innermost tape of this thread; null if there is none.
  static State* innermost();
  static void enter(std::shared_ptr<State> tape);
  /// Takes a tape of this thread out of the chain.
  static void leave(State* tape);

  bool records() const { return !used && pause == nullptr; }
  bool on_stack(const TapeMark* recorder) const;
  void walk();
  void run(Node& node);
  void abandon();
  std::exception_ptr settle_leaves();
  void drop_nodes();

  Tape* const owner;
  Options options;
  const std::shared_ptr<TapeMark> mark;
  State* outer;
  std::shared_ptr<State> self;  // while it is in the chain
  Pause* pause = nullptr;       // the innermost one of this tape
  bool used = false;
  std::atomic<bool> ended = false;  // on another thread
  std::vector<std::unique_ptr<Node>> nodes;
  Node::Cells leaves;  // those that the walk adds to

 private:
  static inline constinit thread_local State* chain = nullptr;
};

Tape::State* Tape::State::innermost() {
  while (chain != nullptr && chain->ended.load(std::memory_order_acquire)) leave(chain);
  return chain;
}

void Tape::State::enter(std::shared_ptr<State> tape) {
  struct ThreadEnd {
    ~ThreadEnd() {
      while (chain != nullptr) leave(chain);
    }
  };
  thread_local const ThreadEnd at_thread_end;
  chain = tape.get();
  chain->self = std::move(tape);
}

void Tape::State::leave(State* tape) {
  const std::shared_ptr<State> last = std::move(tape->self);
  unlink(chain, tape, &State::outer);
}

bool Tape::State::on_stack(const TapeMark* recorder) const {
  for (const State* tape = this; tape != nullptr; tape = tape->outer) {
    if (tape->mark.get() == recorder) return true;
  }
  return false;
}

// Last op first, as backward would, so that destroying a long chain needs no deep stack.
void Tape::State::drop_nodes() {
  while (!nodes.empty()) nodes.pop_back();
}

Tape::Tape(Options options) : state_(std::make_shared<State>(*this, options)) { State::enter(state_); }

Tape::~Tape() {
  state_->mark->recording = false;
  if (state_->mark->thread != thread_number()) {
    state_->ended.store(true, std::memory_order_release);
    return;
  }
  State::leave(state_.get());
  state_->drop_nodes();
}

Index Tape::size() const { return std::ssize(state_->nodes); }

Tape* Tape::recording() {
  const State* tape = State::innermost();
  return tape != nullptr && tape->records() ? tape->owner : nullptr;
}

Tape::Pass Tape::pass() {
  const State* tape = State::innermost();
  if (tape == nullptr) return Pass::forward;
  if (tape->used) return Pass::backward;
  const State* outer = tape->outer;
  while (outer != nullptr && (!outer->used || outer->ended)) outer = outer->outer;
  return outer != nullptr ? Pass::recompute : Pass::forward;
}

void Tape::backward(const Var& root) {
  check(root.value().defined() && root.value().size() == 1,
        "backward: the root is {}, not a scalar; pass a cotangent of that shape", root.shape());
  backward(root, Tensor::full(root.shape(), root.dtype(), 1.0));
}

void Tape::backward(const Var& root, const Tensor& cotangent) {
  check(state_->mark->thread == thread_number(), "backward: the tape belongs to another thread");
  check(!state_->used, "backward: this tape has already been used");
  check(State::innermost() == state_.get(), "backward: another tape is active inside this one");
  check(root.tracked() && root.cell()->tape == state_->mark,
        "backward: the root was not recorded on this tape");
  check(cotangent.defined(), "backward: the cotangent has no value");
  check(cotangent.shape() == root.shape() && cotangent.dtype() == root.dtype(),
        "backward: the cotangent is {} {}, the root {} {}", cotangent.dtype(), cotangent.shape(),
        root.dtype(), root.shape());
  state_->used = true;
  state_->mark->recording = false;
  root.cell()->grad = cotangent;
  state_->walk();
}

void Tape::State::walk() {
  try {
    while (!nodes.empty()) {
      const OpScope scope(nodes.back()->name());  // ends when the node is gone
      const std::unique_ptr<Node> node = std::move(nodes.back());
      nodes.pop_back();
      run(*node);
    }
  } catch (...) {
    abandon();
    throw;
  }
  if (const std::exception_ptr error = settle_leaves()) std::rethrow_exception(error);
}

// After an error, only what had already arrived at the leaves is left.
void Tape::State::abandon() {
  for (const auto& node : nodes) {
    for (const auto& cell : node->outputs) cell->grad = Tensor();
  }
  drop_nodes();
  settle_leaves();
}

// Rules pass gradients on without copying. So a gradient that ended in a leaf may also be that of another leaf, or the
// caller's cotangent, and changing one in place would change them all. A leaf whose gradient cannot be copied loses it;
// the error is returned.
std::exception_ptr Tape::State::settle_leaves() {
  std::exception_ptr error;
  for (const auto& cell : leaves) {
    try {
      if (cell->grad.defined()) make_unique(cell->grad);
    } catch (...) {
      cell->grad = Tensor();
      error = std::current_exception();
    }
    cell->writer.store(0, std::memory_order_release);
  }
  leaves.clear();
  return error;
}

void Tape::State::run(Node& node) {
  // The gradients are moved out of their cells, so they are freed when this node is done.
  std::vector<Tensor> dys;
  for (const auto& cell : node.outputs) dys.push_back(std::exchange(cell->grad, Tensor()));
  const bool reached = std::any_of(dys.begin(), dys.end(), [](const Tensor& dy) { return dy.defined(); });
  if (!reached) return;  // not on a path to the root
  InputGrads dx(node.name(), node.inputs, leaves);
  node.backward(dys, dx);
  dx.publish();
  if (!options.detect_anomaly) return;
  for (const auto& cell : node.inputs) {
    check(cell == nullptr || !cell->grad.defined() || is_finite(cell->grad),
          "{}: backward made the first NaN or Inf, in the gradient of an input of shape {}", node.name(),
          cell == nullptr ? Shape() : cell->shape);
  }
}

Tape::Pause::Pause() : outer_(nullptr) {
  if (State* const tape = State::innermost()) {
    tape_ = tape->self;
    outer_ = std::exchange(tape->pause, this);
  }
}

Tape::Pause::~Pause() {
  if (tape_ == nullptr) return;
  unlink(tape_->pause, this, &Pause::outer_);
  if (outer_ != nullptr) outer_->skipped_ |= skipped_;
}

Recorder::Recorder(std::string_view op, std::span<const Var> inputs, std::span<const Tensor> checked,
                   When when)
    : inputs_(inputs), saved_before_(Saved::total_bytes()) {
  Tape::State* const tape = Tape::State::innermost();
  const bool in_use = tape != nullptr && !tape->used;
  if (in_use && tape->options.detect_anomaly) {
    for (const Tensor& y : checked) {
      check(is_finite(y), "{}: made the first NaN or Inf, in an output of shape {}", op, y.shape());
    }
  }
  bool tracked = false;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].tracked()) continue;
    tracked = true;
    const TapeMark* recorder = inputs[i].cell()->tape.get();
    if (recorder == nullptr || (tape != nullptr && tape->on_stack(recorder))) continue;
    check(!recorder->recording || recorder->thread == thread_number(),
          "{}: input {} {} is being recorded on a tape of another thread, which would lose its gradient", op,
          i, inputs[i].shape());
    check(!in_use || tape->pause != nullptr,
          "{}: input {} {} was recorded on another tape (number {}, the active one is {})", op, i,
          inputs[i].shape(), recorder->number, in_use ? tape->mark->number : 0);
  }
  if (!in_use || (!tracked && when != When::always)) return;
  if (tape->pause != nullptr) {
    tape->pause->skipped_ = true;
    return;
  }
  tape_ = tape;
}

Node::Cells Recorder::output_cells(std::span<const Tensor> outputs) const {
  Node::Cells cells;
  for (const Tensor& y : outputs) {
    cells.push_back(std::make_shared<GradCell>(y.shape(), y.dtype(), tape_->mark));
  }
  return cells;
}

Node::Cells Recorder::input_cells() const {
  Node::Cells cells;
  for (const Var& x : inputs_) cells.push_back(x.cell());
  return cells;
}

void Recorder::push(std::unique_ptr<Node> node) {
  if (OpListener* listener = ListenScope::listening()) {
    listener->recorded(node->name(), Saved::total_bytes() - saved_before_);
  }
  tape_->nodes.push_back(std::move(node));
}

void check_no_gradient_path(std::string_view op, const Var& input) {
  check(Tape::recording() == nullptr || !input.tracked(),
        "{}: has no backward, but its input {} is on a gradient path; pass input.detach() if that is meant",
        op, input.shape());
}

}  // namespace tilegrad
