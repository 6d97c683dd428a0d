// Tapes and leaves of several threads.
#include <doctest/doctest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <thread>

#include "tests/message_of.h"
#include "tests/tensors.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"

using namespace tilegrad;
using test::scalar;
using tilegrad::test::message_of;

namespace {

template <class F>
void on_another_thread(F&& f) {
  std::thread(std::forward<F>(f)).join();
}

// y = x, and backward calls a function before it goes on.
struct CallRule {
  static constexpr std::string_view name = "call";
  std::function<void()> f;

  void backward(const Tensor& dy, InputGrads& dx) {
    f();
    dx.add(0, dy);
  }
};

Var call(const Var& x, std::function<void()> f) {
  return record(x.value(), {x}, [&] { return CallRule{std::move(f)}; });
}

}  // namespace

TEST_CASE("tape: an op on another thread with a value of a tape that records is an error") {
  const Var x = Var::leaf(scalar(3));
  const std::string expected =
      "mul: input 0 () is being recorded on a tape of another thread, which would lose its gradient";
  auto tape = std::make_unique<Tape>();
  const Var y = mul(x, x);
  on_another_thread([&] {
    CHECK(message_of([&] { mul(y, y); }) == expected);
    CHECK(mul(y.detach(), y.detach()).value().item() == 81);
    CHECK(mul(x, x).value().item() == 9);  // leaves are nobody's
    const Tape own;
    CHECK(message_of([&] { mul(y, y); }) == expected);
    const Tape::Pause pause;
    CHECK(message_of([&] { mul(y, y); }) == expected);
  });
  tape->backward(y);
  on_another_thread([&] { CHECK(mul(y, y).value().item() == 81); });  // nothing is left to lose
}

TEST_CASE("tape: backward on another thread is an error") {
  const Var x = Var::leaf(scalar(3));
  Tape tape;
  const Var y = mul(x, x);
  on_another_thread([&] {
    CHECK(message_of([&] { tape.backward(y); }) == "backward: the tape belongs to another thread");
  });
  tape.backward(y);
  CHECK(x.grad().item() == 6);
}

TEST_CASE("tape: two backward passes at once into one leaf are an error, one after the other they add up") {
  const Var x = Var::leaf(scalar(3)), own = Var::leaf(scalar(1));
  const auto walk = [&] {
    Tape tape;
    tape.backward(mul(x, own.detach()));
  };
  std::string message;
  {
    Tape tape;
    // x has been written by the time the other thread comes, and this walk is not over.
    const Var last = call(own, [&] { on_another_thread([&] { message = message_of(walk); }); });
    const Var y = add(last, scale(x, 2));
    tape.backward(y);
  }
  CHECK(message == "mul: the gradient of input 0 () is being written by another thread's backward");
  CHECK(x.grad().item() == 2);
  on_another_thread(walk);
  walk();
  CHECK(x.grad().item() == 4);
}

TEST_CASE("tape: a leaf is free again after a backward pass that failed") {
  const Var x = Var::leaf(scalar(3)), own = Var::leaf(scalar(1));
  {
    Tape tape;
    const Var last = call(own, [] { fail("on purpose"); });
    const Var y = add(last, scale(x, 2));
    CHECK_THROWS_AS(tape.backward(y), Error);
  }
  on_another_thread([&] {
    Tape tape;
    tape.backward(scale(x, 5));
  });
  CHECK(x.grad().item() == 7);
}

TEST_CASE("tape: walks of many threads into one leaf add up, but for those that were refused") {
  const Var x = Var::leaf(Tensor::full({1000}, Dtype::f64, 1));
  std::atomic<int> added = 0;
  const auto work = [&] {
    for (int i = 0; i < 50; ++i) {
      Tape tape;
      const std::string message = message_of([&] { tape.backward(sum(x)); });
      if (message.empty()) ++added;
    }
  };
  std::thread first(work), second(work);
  first.join();
  second.join();
  CHECK(added > 0);
  for (Index i = 0; i < x.value().size(); ++i) CHECK(x.grad().at(i) == added);
}

TEST_CASE("tape: may be destroyed on another thread, while its own goes on") {
  const Var x = Var::leaf(Tensor::full({1000}, Dtype::f64, 2));
  const Index before = memory::usage().live;
  auto tape = std::make_unique<Tape>();
  gelu(x);
  std::thread other([&] { tape.reset(); });
  for (int i = 0; i < 200; ++i) gelu(x);
  other.join();
  CHECK(Tape::recording() == nullptr);
  CHECK(Tape::pass() == Tape::Pass::forward);
  CHECK(memory::usage().live == before);  // what it held is gone with it
  Tape next;
  next.backward(sum(x));
  CHECK(x.grad().at(0) == 1);
}

TEST_CASE("tape: of nested ones, one that ended on another thread is passed over") {
  const Var x = Var::leaf(scalar(2));
  auto outer = std::make_unique<Tape>();
  Tape inner;
  const Var y = mul(x, x);
  on_another_thread([&] { outer.reset(); });
  CHECK(Tape::recording() == &inner);
  inner.backward(y);
  CHECK(x.grad().item() == 4);
}

TEST_CASE("tape: may outlive the thread that made it") {
  const Var x = Var::leaf(Tensor::full({1000}, Dtype::f64, 2));
  const Index before = memory::usage().live;
  std::unique_ptr<Tape> tape;
  on_another_thread([&] {
    tape = std::make_unique<Tape>();
    gelu(x);
  });
  CHECK(tape->size() == 1);
  CHECK(message_of([&] { tape->backward(x, x.value()); }) == "backward: the tape belongs to another thread");
  tape.reset();
  CHECK(memory::usage().live == before);
}
