#include "tilegrad/nn/transformer.h"

namespace tilegrad::nn {

namespace {

// Rows of a key or value projection are heads of D rows each; head h of `to` is the mean of heads
// [h g, (h + 1) g) of `from`, g = how many there are of them for one of `to`.
void pool_rows(Tensor& to, const Tensor& from, Index to_heads, Index from_heads) {
  const Index group = from_heads / to_heads, head = from.size() / from_heads;
  with_float_type("pool_kv_heads", to.dtype(), [&]<class T>() {
    const T* source = from.view<T>().data();
    T* target = to.mut<T>().data();
    for (Index h = 0; h < to_heads; ++h) {
      for (Index i = 0; i < head; ++i) {
        double sum = 0;
        for (Index g = 0; g < group; ++g) sum += static_cast<double>(source[(h * group + g) * head + i]);
        target[h * head + i] = static_cast<T>(sum / static_cast<double>(group));
      }
    }
  });
}

bool is_kv(std::string_view name) {
  return name.find("attention.key.") != std::string_view::npos ||
         name.find("attention.value.") != std::string_view::npos;
}

}  // namespace

void pool_kv_heads(Transformer& to, Transformer& from) {
  check(from.config.attention.kv_heads % to.config.attention.kv_heads == 0,
        "pool_kv_heads: kv_heads {} does not divide kv_heads {}", to.config.attention.kv_heads,
        from.config.attention.kv_heads);
  check(from.config.attention.heads == to.config.attention.heads,
        "pool_kv_heads: the models have {} and {} heads", to.config.attention.heads,
        from.config.attention.heads);
  const auto targets = parameters(to), sources = parameters(from);
  check(targets.size() == sources.size(), "pool_kv_heads: the models have {} and {} parameters",
        targets.size(), sources.size());
  for (std::size_t i = 0; i < targets.size(); ++i) {
    Tensor& target = targets[i].parameter->value();
    const Tensor& source = sources[i].parameter->value();
    const bool kv = is_kv(targets[i].name);
    check(targets[i].name == sources[i].name && target.dtype() == source.dtype() &&
              (kv || target.shape() == source.shape()),
          "pool_kv_heads: {} {} does not match {} {}", targets[i].name, target.shape(), sources[i].name,
          source.shape());
    pool_rows(target, source, kv ? to.config.attention.kv_heads : 1, kv ? from.config.attention.kv_heads : 1);
  }
}

}  // namespace tilegrad::nn
