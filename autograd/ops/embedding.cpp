#include "tilegrad/kernels/embedding.h"

#include <vector>

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/ops/checks.h"
#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad {

namespace {

// y_n = table[ids_n]:  dtable[i] = Σ dy_n over the n with ids_n = i.
struct EmbeddingRule {
  static constexpr std::string_view name = "embedding";
  Saved ids;

  void backward(const Tensor& dy, InputGrads& dx) {
    const auto id = ids.get(name, "ids").view<std::int32_t>();
    with_float_type(name, dy.dtype(),
                    [&]<class T>() { kernels::embedding_backward<T>(dx.grad_mat<T>(0), dy.mat<T>(), id); });
  }
};

// The shape of `outer` with one more axis.
Shape append(const Shape& outer, Index last) {
  std::vector<Index> dims(outer.begin(), outer.end());
  dims.push_back(last);
  return Shape(std::span<const Index>(dims));
}

}  // namespace

Var embedding(const Var& table, const Tensor& ids) {
  const OpScope op(EmbeddingRule::name);
  op.check(table.rank() == 2, "table is {}, not (vocabulary, width)", table.shape());
  const auto id = ids.view<std::int32_t>();
  check_ids(op, "id", id, table.dim(0));
  Tensor y = Tensor::empty(append(ids.shape(), table.dim(1)), table.dtype());
  op.with_float_type(y.dtype(),
                     [&]<class T>() { kernels::embedding<T>(y.mut_mat<T>(), table.value().mat<T>(), id); });
  return record(y, {table}, [&] { return EmbeddingRule{.ids = Saved(ids)}; });
}

}  // namespace tilegrad
