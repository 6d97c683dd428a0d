// Its own base/error.h and nn/module.h stand beside those of the library.
#include <cstdio>

#include "base/error.h"
#include "nn/module.h"
#include "tilegrad/tilegrad.h"

int main() {
  using namespace tilegrad;
  const Var x = Var::leaf(Tensor::from<double>({3}, {1, 2, 3}));
  Tape tape;
  tape.backward(sum(mul(x, x)));
  try {
    add(x, Tensor::zeros({2}, Dtype::f64));
  } catch (const Error& error) {
    std::printf("%s, %s, gradient %g, %s\n", own_error(), own_module(), x.grad().at(2), error.what());
  }
}
