#include "tilegrad/attention.h"

int main() {
  using namespace tilegrad;
  const Var x = Tensor::zeros({1, 2, 1, 8}, Dtype::f32);
  return static_cast<int>(attention(x, x, x, AttentionKernel::flash).value().at(0));
}
