#include "tilegrad/autograd/tape.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/kernels/elementwise.h"

namespace tilegrad {

namespace {

thread_local Tape* innermost = nullptr;

// Takes `link` out of a chain that begins at `first` and goes on through `outer`.
template <class T>
void unlink(T*& first, T* link, T* T::*outer) {
  T** at = &first;
  while (*at != nullptr && *at != link) at = &((*at)->*outer);
  if (*at != nullptr) *at = link->*outer;
}

std::uint64_t next_tape_id() {
  static std::atomic<std::uint64_t> last = 0;
  return ++last;
}

bool is_finite(const Tensor& t) {
  if (!is_float(t.dtype())) return true;
  if (t.dtype() == Dtype::bf16) return is_finite(t.cast(Dtype::f32));
  return with_float_type("all_finite", t.dtype(),
                         [&]<class T>() { return kernels::all_finite<T>(t.view<T>()); });
}

void accumulate(Tensor& into, const Tensor& grad) {
  if (into.dtype() == Dtype::bf16) {
    const memory::CategoryScope scope(memory::Category::gradients);
    Tensor sum = into.cast(Dtype::f32);
    accumulate(sum, grad.cast(Dtype::f32));
    into = sum.cast(Dtype::bf16);
    return;
  }
  with_float_type("accumulate", into.dtype(), [&]<class T>() {
    kernels::scale_backward<T>({into.mut<T>(), Write::accumulate}, grad.view<T>(), T{1});
  });
}

/// New gradient memory of the cell's shape.
Tensor make_grad(const GradCell& cell) {
  const memory::CategoryScope scope(memory::Category::gradients);
  return Tensor::empty(cell.shape, cell.dtype);
}

/// Gives the gradient memory that it shares with nobody.
void make_unique(Tensor& grad) {
  const memory::CategoryScope scope(memory::Category::gradients);
  if (!grad.unique()) grad = grad.clone();
}

}  // namespace

InputGrads::InputGrads(std::string_view op, std::span<const std::shared_ptr<GradCell>> cells)
    : op_(op), cells_(cells) {}

InputGrads::Slot InputGrads::slot(Index i) {
  GradCell& cell = *cells_[i];
  // The rule may hold several gradients at once. If two inputs are the same value, as in mul(x, x), one place
  // would be written twice; so the second one gets memory of its own.
  const bool taken = std::find(taken_.begin(), taken_.end(), &cell) != taken_.end();
  if (taken || !cell.grad.defined()) {
    written_.emplace_back(&cell, make_grad(cell));
    return {written_.back().second, Write::overwrite};
  }
  taken_.push_back(&cell);
  make_unique(cell.grad);
  return {cell.grad, Write::accumulate};
}

void InputGrads::publish() {
  for (auto& [cell, grad] : written_) {
    if (cell->grad.defined()) {
      make_unique(cell->grad);
      accumulate(cell->grad, grad);
    } else {
      cell->grad = std::move(grad);
    }
  }
  written_.clear();
}

void InputGrads::add(Index i, const Tensor& grad) {
  GradCell& cell = *cells_[i];
  check(grad.shape() == cell.shape && grad.dtype() == cell.dtype,
        "{}: backward made a gradient {} {} for input {}, which is {} {}", op_, grad.dtype(), grad.shape(), i,
        cell.dtype, cell.shape);
  if (!cell.grad.defined()) {
    cell.grad = grad;
    return;
  }
  make_unique(cell.grad);
  accumulate(cell.grad, grad);
}

Tape::Tape(Options options) : id_(next_tape_id()), options_(options), outer_(innermost) {
  if (outer_ != nullptr) options_.detect_anomaly |= outer_->options_.detect_anomaly;
  innermost = this;
}

Tape::~Tape() {
  unlink(innermost, this, &Tape::outer_);
  for (Pause* pause = pause_; pause != nullptr; pause = pause->outer_) pause->tape_ = nullptr;
  // Last op first, as backward would, so that destroying a long chain needs no deep stack either.
  while (!nodes_.empty()) nodes_.pop_back();
}

Tape* Tape::recording() {
  Tape* tape = innermost;
  return tape == nullptr || tape->used_ || tape->pause_ != nullptr ? nullptr : tape;
}

Tape::Pass Tape::pass() {
  if (innermost == nullptr) return Pass::forward;
  if (innermost->used_) return Pass::backward;
  const Tape* outer = innermost->outer_;
  while (outer != nullptr && !outer->used_) outer = outer->outer_;
  return outer != nullptr ? Pass::recompute : Pass::forward;
}

bool Tape::on_stack(std::uint64_t id) const {
  for (const Tape* tape = this; tape != nullptr; tape = tape->outer_) {
    if (tape->id_ == id) return true;
  }
  return false;
}

void Tape::backward(const Var& root) {
  check(root.value().defined() && root.value().size() == 1,
        "backward: the root is {}, not a scalar; pass a cotangent of that shape", root.shape());
  backward(root, Tensor::full(root.shape(), root.dtype(), 1.0));
}

void Tape::backward(const Var& root, const Tensor& cotangent) {
  check(!used_, "backward: this tape has already been used");
  check(innermost == this, "backward: another tape is active inside this one");
  check(root.tracked() && root.cell()->tape == id_, "backward: the root was not recorded on this tape");
  check(cotangent.defined(), "backward: the cotangent has no value");
  check(cotangent.shape() == root.shape() && cotangent.dtype() == root.dtype(),
        "backward: the cotangent is {} {}, the root {} {}", cotangent.dtype(), cotangent.shape(),
        root.dtype(), root.shape());
  used_ = true;
  root.cell()->grad = cotangent;
  walk();
}

void Tape::walk() {
  while (!nodes_.empty()) {
    const OpScope scope(nodes_.back()->name());  // ends when the node is gone
    const std::unique_ptr<Node> node = std::move(nodes_.back());
    nodes_.pop_back();
    run(*node);
  }
  unshare_leaves();
}

// Rules hand gradients on without a copy. Where one ended in a leaf it may be that of another leaf as well,
// or the caller's cotangent, and whoever changes one in place would change all.
void Tape::unshare_leaves() {
  for (const auto& cell : shared_leaves_) {
    if (cell->grad.defined()) make_unique(cell->grad);
  }
  shared_leaves_.clear();
}

void Tape::run(Node& node) {
  // The gradients are moved out of their cells, so they are freed when this node is done.
  std::vector<Tensor> dys;
  for (const auto& cell : node.outputs) dys.push_back(std::exchange(cell->grad, Tensor()));
  const bool reached = std::any_of(dys.begin(), dys.end(), [](const Tensor& dy) { return dy.defined(); });
  if (!reached) return;  // not on a path to the root
  if (observer_) observer_(node, dys);
  InputGrads dx(node.name(), node.inputs);
  node.backward(dys, dx);
  dx.publish();
  for (const auto& cell : node.inputs) {
    const bool leaf = cell != nullptr && cell->tape == 0;
    if (leaf && cell->grad.defined() && !cell->grad.unique()) shared_leaves_.push_back(cell);
  }
  if (options_.detect_anomaly) {
    for (const auto& cell : node.inputs) {
      check(cell == nullptr || !cell->grad.defined() || is_finite(cell->grad),
            "{}: backward made the first NaN or Inf, in the gradient of an input of shape {}", node.name(),
            cell == nullptr ? Shape() : cell->shape);
    }
  }
}

Tape::Pause::Pause() : tape_(innermost), outer_(tape_ == nullptr ? nullptr : tape_->pause_) {
  if (tape_ != nullptr) tape_->pause_ = this;
}

Tape::Pause::~Pause() {
  if (tape_ == nullptr) return;
  unlink(tape_->pause_, this, &Pause::outer_);
  if (outer_ != nullptr) outer_->skipped_ |= skipped_;
}

Recorder::Recorder(std::string_view op, std::span<const Var> inputs, std::span<const Tensor> checked,
                   When when)
    : inputs_(inputs), saved_before_(Saved::total_bytes()) {
  if (innermost == nullptr || innermost->used_) return;
  if (innermost->options_.detect_anomaly) {
    for (const Tensor& y : checked) {
      check(is_finite(y), "{}: made the first NaN or Inf, in an output of shape {}", op, y.shape());
    }
  }
  const bool tracked = std::any_of(inputs.begin(), inputs.end(), [](const Var& x) { return x.tracked(); });
  if (!tracked && when != When::always) return;
  if (innermost->pause_ != nullptr) {
    innermost->pause_->skipped_ = true;
    return;
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    check(!inputs[i].tracked() || inputs[i].cell()->tape == 0 || innermost->on_stack(inputs[i].cell()->tape),
          "{}: input {} {} was recorded on another tape (number {}, the active one is {})", op, i,
          inputs[i].shape(), inputs[i].cell() ? inputs[i].cell()->tape : 0, innermost->id_);
  }
  tape_ = innermost;
}

Node::Cells Recorder::output_cells(std::span<const Tensor> outputs) const {
  Node::Cells cells;
  for (const Tensor& y : outputs) {
    cells.push_back(std::make_shared<GradCell>(
        GradCell{.shape = y.shape(), .dtype = y.dtype(), .grad = {}, .tape = tape_->id_}));
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
  tape_->nodes_.push_back(std::move(node));
}

void check_no_gradient_path(std::string_view op, const Var& input) {
  check(Tape::recording() == nullptr || !input.tracked(),
        "{}: has no backward, but its input {} is on a gradient path; pass input.detach() if that is meant",
        op, input.shape());
}

}  // namespace tilegrad
