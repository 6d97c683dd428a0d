#include "tilegrad/autograd/input_grads.h"

#include <algorithm>

#include "tilegrad/kernels/elementwise.h"

namespace tilegrad {

namespace {

void accumulate(Tensor& into, const Tensor& grad) {
  if (is_narrow(into.dtype())) {
    const memory::CategoryScope scope(memory::Category::gradients);
    Tensor sum = into.cast(Dtype::f32);
    accumulate(sum, grad.cast(Dtype::f32));
    into = sum.cast(into.dtype());
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

}  // namespace

InputGrads::InputGrads(std::string_view op, std::span<const std::shared_ptr<GradCell>> cells,
                       std::vector<std::shared_ptr<GradCell>>& leaves)
    : op_(op), cells_(cells), leaves_(leaves) {}

GradCell& InputGrads::claim(Index i) {
  const std::shared_ptr<GradCell>& cell = cells_[i];
  if (!cell->is_leaf()) return *cell;  // it belongs to a tape of this thread
  leaves_.push_back(cell);
  std::uint64_t writer = 0;
  if (cell->writer.compare_exchange_strong(writer, thread_number(), std::memory_order_acquire)) return *cell;
  leaves_.pop_back();  // claimed earlier, by this walk or an enclosing one
  check(writer == thread_number(),
        "{}: the gradient of input {} {} is being written by another thread's backward", op_, i, cell->shape);
  return *cell;
}

InputGrads::Slot InputGrads::slot(Index i) {
  GradCell& cell = claim(i);
  // The rule may hold several gradients at once. If two inputs are the same value, as in mul(x, x), one place
  // would be written twice; so the second input gets memory of its own.
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
  GradCell& cell = claim(i);
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

void make_unique(Tensor& grad) {
  const memory::CategoryScope scope(memory::Category::gradients);
  if (!grad.unique()) grad = grad.clone();
}

}  // namespace tilegrad
