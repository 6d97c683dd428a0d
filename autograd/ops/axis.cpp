#include "tilegrad/kernels/axis.h"

#include <limits>
#include <vector>

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/ops/checks.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad {

namespace {

kernels::AxisSizes sizes_along(const Shape& shape, int axis) {
  kernels::AxisSizes sizes{.n = shape[axis]};
  for (int i = 0; i < axis; ++i) sizes.outer *= shape[i];
  for (int i = axis + 1; i < shape.rank(); ++i) sizes.inner *= shape[i];
  return sizes;
}

Shape without(const Shape& shape, int axis) {
  std::vector<Index> dims(shape.begin(), shape.end());
  dims.erase(dims.begin() + axis);
  return Shape(std::span<const Index>(dims));
}

Shape with_axis(const Shape& shape, int axis, Index n) {
  std::vector<Index> dims(shape.begin(), shape.end());
  dims.insert(dims.begin() + axis, n);
  return Shape(std::span<const Index>(dims));
}

// y_oj = s Σ_i x_oij:  dx_oij = s dy_oj.
struct ScaledSum {
  kernels::AxisSizes sizes;
  double s;

  void backward(const Tensor& dy, InputGrads& dx) {
    with_float_type("sum", dy.dtype(), [&]<class T>() {
      kernels::repeat_axis<T>(dx.grad<T>(0), dy.view<T>(), sizes, static_cast<T>(s));
    });
  }
};

struct SumAxisRule : ScaledSum {
  static constexpr std::string_view name = "sum";
};
struct MeanAxisRule : ScaledSum {
  static constexpr std::string_view name = "mean";
};

// y_oij = x_oj:  dx_oj = Σ_i dy_oij.
struct BroadcastRule {
  static constexpr std::string_view name = "broadcast";
  kernels::AxisSizes sizes;

  void backward(const Tensor& dy, InputGrads& dx) {
    with_float_type(name, dy.dtype(),
                    [&]<class T>() { kernels::sum_axis<T>(dx.grad<T>(0), dy.view<T>(), sizes, 1.0); });
  }
};

// y_oj = x_oij with i = ids_oj:  dx is dy there, 0 elsewhere.
struct GatherRule {
  static constexpr std::string_view name = "gather";
  kernels::AxisSizes sizes;
  Saved ids;

  void backward(const Tensor& dy, InputGrads& dx) {
    const auto id = ids.get(name, "ids").view<std::int32_t>();
    with_float_type(name, dy.dtype(), [&]<class T>() {
      kernels::take_axis_backward<T>(dx.grad<T>(0), dy.view<T>(), id, sizes);
    });
  }
};

template <class AxisRule>
Var scaled_sum(const OpScope& op, const Var& x, int axis, double s) {
  const kernels::AxisSizes sizes = sizes_along(x.shape(), axis);
  Tensor y = Tensor::empty(without(x.shape(), axis), x.dtype());
  op.with_float_type(y.dtype(), [&]<class T>() {
    kernels::sum_axis<T>({y.mut<T>(), Write::overwrite}, x.value().view<T>(), sizes, s);
  });
  return record(y, {x}, [&] { return AxisRule{{sizes, s}}; });
}

// Fills an axis with each element's largest entry; x may be on a gradient path.
Tensor largest(const OpScope& op, const Tensor& x, int axis) {
  const kernels::AxisSizes sizes = sizes_along(x.shape(), axis);
  op.check(sizes.n > 0 && sizes.n <= std::numeric_limits<std::int32_t>::max(), "axis {} of {} has {} entries",
           axis, x.shape(), sizes.n);
  Tensor ids = Tensor::empty(without(x.shape(), axis), Dtype::i32);
  op.with_float_type(
      x.dtype(), [&]<class T>() { kernels::argmax_axis<T>(ids.mut<std::int32_t>(), x.view<T>(), sizes); });
  return ids;
}

}  // namespace

Var sum(const Var& x, int axis) {
  return scaled_sum<SumAxisRule>(OpScope(SumAxisRule::name), x, x.shape().axis(axis), 1.0);
}

Var mean(const Var& x, int axis) {
  const OpScope op(MeanAxisRule::name);
  const int at = x.shape().axis(axis);
  op.check(x.dim(at) > 0, "axis {} of {} is empty", axis, x.shape());
  return scaled_sum<MeanAxisRule>(op, x, at, 1.0 / static_cast<double>(x.dim(at)));
}

Var broadcast(const Var& x, int axis, Index n) {
  const OpScope op(BroadcastRule::name);
  const int at = axis < 0 ? axis + x.rank() + 1 : axis;
  op.check(0 <= at && at <= x.rank(), "{} has no place for a new axis {}", x.shape(), axis);
  Tensor y = Tensor::empty(with_axis(x.shape(), at, n), x.dtype());
  const kernels::AxisSizes sizes = sizes_along(y.shape(), at);
  op.with_float_type(y.dtype(), [&]<class T>() {
    kernels::repeat_axis<T>({y.mut<T>(), Write::overwrite}, x.value().view<T>(), sizes, T{1});
  });
  return record(y, {x}, [&] { return BroadcastRule{sizes}; });
}

Var gather(const Var& x, const Tensor& ids, int axis) {
  const OpScope op(GatherRule::name);
  const int at = x.shape().axis(axis);
  op.check(ids.shape() == without(x.shape(), at), "ids are {}, not of the shape of x, {}, without axis {}",
           ids.shape(), x.shape(), axis);
  const auto id = ids.view<std::int32_t>();
  check_ids(op, "id", id, x.dim(at));
  const kernels::AxisSizes sizes = sizes_along(x.shape(), at);
  Tensor y = Tensor::empty(ids.shape(), x.dtype());
  op.with_float_type(y.dtype(),
                     [&]<class T>() { kernels::take_axis<T>(y.mut<T>(), x.value().view<T>(), id, sizes); });
  return record(y, {x}, [&] { return GatherRule{.sizes = sizes, .ids = Saved(ids)}; });
}

Var max(const Var& x, int axis) {
  const OpScope op("max");
  const int at = x.shape().axis(axis);
  return gather(x, largest(op, x.value(), at), at);
}

Tensor argmax(const Var& x, int axis) {
  const OpScope op("argmax");
  check_no_gradient_path(op.name(), x);
  return largest(op, x.value(), x.shape().axis(axis));
}

}  // namespace tilegrad
