// The library in one page; docs/library.md explains each part.
#include <iostream>

#include "tilegrad/tilegrad.h"

using namespace tilegrad;

// A polynomial whose coefficients are to be found.
struct Polynomial {
  std::vector<Parameter> coefficients;

  explicit Polynomial(int degree) {
    for (int i = 0; i <= degree; ++i) coefficients.emplace_back(Tensor::zeros({1}, Dtype::f64));
  }
  Var operator()(const Tensor& x) const {
    Var y = Tensor::zeros(x.shape(), Dtype::f64);
    for (std::size_t i = 0; i < coefficients.size(); ++i) {
      const Var c = broadcast(reshape(coefficients[i], {}), 0, x.size());
      y = y + c * pow(x, static_cast<double>(i));
    }
    return y;
  }
  void visit(auto&& f) { f("coefficients", coefficients); }
};

int main() {
  // Tensors are made from lists, zeros, or random numbers of a key; printed; and read by position.
  const Tensor a = Tensor::from<double>({2, 3}, {1, 2, 3, 4, 5, 6});
  const Tensor noise = Tensor::normal({2, 3}, Dtype::f64, RandomKey{1}, 0.01);
  std::cout << a << "\n" << a.at({1, -1}) << "\n";

  // Ops work on Vars. While a tape lives, those that depend on a leaf are recorded.
  const Var x = Var::leaf((a + noise).value());
  {
    Tape tape;
    const Var shares = exp(x) / broadcast(sum(exp(x), 1), 1, 3);  // softmax by hand: each row by its sum
    tape.backward(mean(-log(shares)));
  }
  std::cout << x.grad() << "\n";

  // A module lists its members in visit(); optimisers and files go through that list.
  Polynomial model(2);
  const Tensor at = Tensor::from<double>({5}, {-1, -0.5, 0, 0.5, 1});
  const Var target = 3 - 2 * (at * at);
  nn::Sgd optimizer(nn::parameters(model), {.momentum = 0.9});
  for (int step = 0; step < 300; ++step) {
    Tape tape;
    tape.backward(mean(pow(model(at) - target, 2)));
    optimizer.step(0.1);
    nn::zero_grad(nn::parameters(model));
  }

  // Into a file and back, in one call each.
  nn::save("polynomial.safetensors", model);
  Polynomial loaded(2);
  nn::load("polynomial.safetensors", loaded);
  for (const auto& [name, p] : nn::parameters(loaded)) std::cout << name << " = " << p->value().at(0) << "\n";
}
