#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/ops/checks.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/kernels/copy.h"
#include "tilegrad/kernels/elementwise.h"

namespace tilegrad {

namespace {

// y = x in another shape:  dx = dy in x's shape.
struct ReshapeRule {
  static constexpr std::string_view name = "reshape";
  Shape shape;

  void backward(const Tensor& dy, InputGrads& dx) { dx.add(0, dy.reshape(shape)); }
};

// A tensor cut at an axis is a matrix: its rows are all axes before, its columns the axis and all after.
// Entries [begin, begin + n) of the axis are then neighbouring columns.
struct AxisView {
  Index rows, entries, inner;

  AxisView(const Shape& shape, int axis) : rows(1), entries(shape[axis]), inner(1) {
    for (int i = 0; i < axis; ++i) rows *= shape[i];
    for (int i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
  }
  template <class T>
  kernels::Mat<T> mat(T* data) const {
    return {data, rows, entries * inner};
  }
};

// y = x[begin ≤ i < end]:  dx is dy there, 0 elsewhere.
struct SliceRule {
  static constexpr std::string_view name = "slice";
  Shape shape;
  int axis;
  Index begin;

  void backward(const Tensor& dy, InputGrads& dx) {
    const AxisView outer(shape, axis), inner(dy.shape(), axis);
    with_float_type(name, dy.dtype(), [&]<class T>() {
      const auto grad = dx.grad<T>(0);
      if (grad.write == Write::overwrite) kernels::fill<T>(grad.to, T{0});
      const auto part = inner.mat(dy.view<T>().data());
      kernels::copy<T>(outer.mat(grad.to.data()).col_block(begin * outer.inner, part.cols), Write::accumulate,
                       part);
    });
  }
};

// y = [x_0, x_1, ...]:  dx_i is its part of dy.
struct ConcatRule {
  static constexpr std::string_view name = "concat";
  std::vector<Shape> shapes;
  int axis;

  void backward(const Tensor& dy, InputGrads& dx) {
    const AxisView outer(dy.shape(), axis);
    Index begin = 0;
    for (Index i = 0; i < std::ssize(shapes); ++i) {
      const AxisView inner(shapes[i], axis);
      with_float_type(name, dy.dtype(), [&]<class T>() {
        const auto grad = dx.grad<T>(i);
        const auto part = inner.mat(grad.to.data());
        if (grad) {
          kernels::copy<T>(part, grad.write, outer.mat(dy.view<T>().data()).col_block(begin, part.cols));
        }
      });
      begin += inner.entries * inner.inner;
    }
  }
};

// y = x with axes 1 and 2 exchanged:  dx = dy with them exchanged back.
struct SwapAxesRule {
  static constexpr std::string_view name = "swap_axes";

  void backward(const Tensor& dy, InputGrads& dx) {
    with_float_type(name, dy.dtype(), [&]<class T>() {
      const auto grad = dx.grad<T>(0);
      kernels::swap_axes<T>(grad.to.data(), grad.write, dy.view<T>().data(), dy.dim(0), dy.dim(1), dy.dim(2),
                            dy.dim(3));
    });
  }
};

// y = x in another dtype:  dx = dy in x's dtype.
struct CastRule {
  static constexpr std::string_view name = "cast";
  Dtype dtype;

  void backward(const Tensor& dy, InputGrads& dx) {
    const memory::CategoryScope scope(memory::Category::gradients);
    dx.add(0, dy.cast(dtype));
  }
};

}  // namespace

Var reshape(const Var& x, const Shape& shape) {
  const OpScope op(ReshapeRule::name);
  return record(x.value().reshape(shape), {x}, [&] { return ReshapeRule{x.shape()}; });
}

Var slice(const Var& x, int axis, Index begin, Index end) {
  const OpScope op(SliceRule::name);
  const int at = x.shape().axis(axis);
  op.check(0 <= begin && begin <= end && end <= x.dim(at), "[{}, {}) of axis {} of {}", begin, end, axis,
           x.shape());
  Tensor y = Tensor::empty(x.shape().with(at, end - begin), x.dtype());
  const AxisView outer(x.shape(), at), inner(y.shape(), at);
  op.with_float_type(y.dtype(), [&]<class T>() {
    const auto part = inner.mat(y.mut<T>().data());
    kernels::copy<T>(part, Write::overwrite,
                     outer.mat(x.value().view<T>().data()).col_block(begin * outer.inner, part.cols));
  });
  return record(y, {x}, [&] { return SliceRule{.shape = x.shape(), .axis = at, .begin = begin}; });
}

Var concat(std::span<const Var> xs, int axis) {
  const OpScope op(ConcatRule::name);
  op.check(!xs.empty(), "there is nothing to join");
  const int at = xs[0].shape().axis(axis);
  Index entries = 0;
  std::vector<Shape> shapes;
  for (const Var& x : xs) {
    check_same_dtype(op, xs[0], x);
    op.check(x.rank() == xs[0].rank() && x.shape().with(at, 0) == xs[0].shape().with(at, 0),
             "{} and {} differ in an axis other than {}", xs[0].shape(), x.shape(), axis);
    entries += x.dim(at);
    shapes.push_back(x.shape());
  }
  Tensor y = Tensor::empty(xs[0].shape().with(at, entries), xs[0].dtype());
  const AxisView outer(y.shape(), at);
  op.with_float_type(y.dtype(), [&]<class T>() {
    Index begin = 0;
    for (const Var& x : xs) {
      const auto part = AxisView(x.shape(), at).mat(x.value().view<T>().data());
      kernels::copy<T>(outer.mat(y.mut<T>().data()).col_block(begin, part.cols), Write::overwrite, part);
      begin += part.cols;
    }
  });
  return record(y, xs, [&] { return ConcatRule{.shapes = std::move(shapes), .axis = at}; });
}

Var swap_axes(const Var& x) {
  const OpScope op(SwapAxesRule::name);
  op.check(x.rank() == 4, "x is {}, not (A, B, C, D)", x.shape());
  Tensor y = Tensor::empty({x.dim(0), x.dim(2), x.dim(1), x.dim(3)}, x.dtype());
  op.with_float_type(y.dtype(), [&]<class T>() {
    kernels::swap_axes<T>(y.mut<T>().data(), Write::overwrite, x.value().view<T>().data(), x.dim(0), x.dim(1),
                          x.dim(2), x.dim(3));
  });
  return record(y, {x}, [] { return SwapAxesRule{}; });
}

Var transpose(const Var& x) {
  const OpScope op("transpose");
  op.check(x.rank() >= 2, "x is {}, it needs two axes", x.shape());
  const Index m = x.dim(-2), n = x.dim(-1);
  // As (all axes before, M, N, 1), the last two axes of x are the middle ones.
  const Var y = swap_axes(reshape(x, {m * n > 0 ? x.shape().size() / (m * n) : 0, m, n, 1}));
  return reshape(y, x.shape().with(-2, n).with(-1, m));
}

Var stack(std::span<const Var> xs, int axis) {
  const OpScope op("stack");
  op.check(!xs.empty(), "there is nothing to stack");
  const Shape& shape = xs[0].shape();
  const int at = axis < 0 ? axis + shape.rank() + 1 : axis;
  op.check(0 <= at && at <= shape.rank(), "{} has no place for a new axis {}", shape, axis);
  std::vector<Index> dims(shape.begin(), shape.end());
  dims.insert(dims.begin() + at, 1);
  std::vector<Var> parts;
  for (const Var& x : xs) {
    op.check(x.shape() == shape, "shapes differ: {} and {}", shape, x.shape());
    parts.push_back(reshape(x, Shape(std::span<const Index>(dims))));
  }
  return concat(parts, at);
}

Var select(const Var& x, int axis, Index i) {
  const OpScope op("select");
  const int at = x.shape().axis(axis);
  const Index entry = i < 0 ? i + x.dim(at) : i;
  op.check(0 <= entry && entry < x.dim(at), "entry {} of axis {} of {} does not exist", i, axis, x.shape());
  std::vector<Index> dims(x.shape().begin(), x.shape().end());
  dims.erase(dims.begin() + at);
  return reshape(slice(x, at, entry, entry + 1), Shape(std::span<const Index>(dims)));
}

Var cast(const Var& x, Dtype dtype) {
  const OpScope op(CastRule::name);
  op.check(dtype == Dtype::f32 || dtype == Dtype::f64, "{} has no gradient; use Tensor::cast", dtype);
  op.check(x.dtype() == Dtype::f32 || x.dtype() == Dtype::f64, "{} has no gradient; use Tensor::cast",
           x.dtype());
  return record(x.value().cast(dtype), {x}, [&] { return CastRule{x.dtype()}; });
}

}  // namespace tilegrad
