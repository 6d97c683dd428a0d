#include "tilegrad/nn/transformer.h"

#include <array>

#include "tests/nn/tiny.h"
#include "tilegrad/kernels/parallel.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

nn::TransformerConfig with_kv_heads(Index kv_heads,
                                    nn::PositionEncoding positions = nn::PositionEncoding::learned) {
  nn::TransformerConfig config = tiny_model_config();
  config.attention.kv_heads = kv_heads;
  config.attention.positions = positions;
  return config;
}

}  // namespace

TEST_CASE("transformer: naive and flash attention give the same logits and gradients") {
  for (const Index kv_heads : {4, 2, 1}) {
    CAPTURE(kv_heads);
    nn::TransformerConfig config = with_kv_heads(kv_heads);
    nn::Transformer flash(config, RandomKey{1});
    config.attention.kernel = AttentionKernel::naive;
    nn::Transformer naive(config, RandomKey{1});
    const Tensor ids = random_tokens(3, 8, config.vocabulary);
    CHECK(distance(flash(ids, {}).value(), naive(ids, {}).value()) < 1e-12);
    const Run a = run(flash, ids, {.training = true}), b = run(naive, ids, {.training = true});
    for (std::size_t i = 0; i < a.grads.size(); ++i) CHECK(distance(a.grads[i], b.grads[i]) < 1e-12);
  }
}

TEST_CASE("transformer: the gradient matches finite differences, with dropout and checkpoints on") {
  for (const auto kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    nn::TransformerConfig config = with_kv_heads(2, nn::PositionEncoding::rope);
    config.attention.kernel = kernel;
    config.mlp = nn::MlpKind::swiglu;
    config.dropout = 0.2;
    nn::Transformer model(config, RandomKey{1});
    model.schedule = {{0, config.layers}};
    const nn::ForwardOptions mode = {.training = true, .key = {9}};
    const Tensor ids = random_tokens(2, 5, config.vocabulary);
    const Tensor targets = random_tokens(2, 5, config.vocabulary, 6);
    const Run result = run(model, ids, mode);
    const auto parameters = nn::parameters(model);
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      for (const Index place : {1, 3, 5}) {
        CAPTURE(parameters[i].name);
        const Index at = parameters[i].parameter->value().size() * place / 7;
        const double numeric = numeric_derivative(*parameters[i].parameter, at, [&] {
          return cross_entropy(model(ids, mode), targets).value().item();
        });
        CHECK(std::abs(result.grads[i].at(at) - numeric) <= 1e-8 + 1e-7 * std::abs(numeric));
      }
    }
  }
}

TEST_CASE(
    "transformer: its loss is the cross-entropy of its logits, with a tied head and with one of its own") {
  for (const bool tie : {true, false}) {
    nn::TransformerConfig config = tiny_model_config();
    config.tie = tie;
    config.dropout = 0.2;
    nn::Transformer model(config, RandomKey{1});
    const nn::ForwardOptions mode = {.training = true, .key = {9}};
    const Tensor ids = random_tokens(2, 5, config.vocabulary);
    const Tensor targets = random_tokens(2, 5, config.vocabulary, 6);
    const auto gradients = [&](const auto& loss_of) {
      Run result;
      {
        Tape tape;
        const Var loss = loss_of();
        tape.backward(loss);
        result.loss = loss.value().item();
      }
      for (const nn::NamedParameter& p : nn::parameters(model)) result.grads.push_back(p.parameter->grad());
      nn::zero_grad(nn::parameters(model));
      return result;
    };
    check_same_bits(gradients([&] { return model.loss(ids, targets, mode); }),
                    gradients([&] { return cross_entropy(model(ids, mode), targets); }));
  }
}

TEST_CASE("transformer: the logits at a position do not depend on later tokens") {
  const nn::Transformer model(tiny_model_config(), RandomKey{1});
  const Tensor ids = random_tokens(1, 8, 11);
  Tensor other = ids.clone();
  other.mut<std::int32_t>()[5] = (other.mut<std::int32_t>()[5] + 1) % 11;
  const Tensor a = model(ids, {}).value(), b = model(other, {}).value();
  CHECK(distance(a.reshape({8, 11}).prefix(5), b.reshape({8, 11}).prefix(5)) == 0);
  CHECK(distance(a.reshape({8, 11}).prefix(6), b.reshape({8, 11}).prefix(6)) > 1e-3);
}

TEST_CASE("transformer: decoding with a cache gives the logits of the whole forward") {
  for (const auto positions : {nn::PositionEncoding::learned, nn::PositionEncoding::rope}) {
    for (const Index kv_heads : {4, 2, 1}) {
      for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
        CAPTURE(kv_heads);
        CAPTURE(static_cast<int>(positions));
        nn::TransformerConfig config = with_kv_heads(kv_heads, positions);
        config.dtype = dtype;
        const nn::Transformer model(config, RandomKey{1});
        const Tensor ids = random_tokens(1, 8, config.vocabulary);
        const Tensor whole = model(ids, {}).value().reshape({8, 11});
        std::vector<nn::KvCache> caches = model.make_caches();
        Index done = 0;
        for (const Index chunk : {3, 1, 1, 2, 1}) {  // a prompt, then mostly one by one
          const auto next = ids.view<std::int32_t>().subspan(done, static_cast<std::size_t>(chunk));
          const Tensor logits = model(Tensor::from<std::int32_t>({1, chunk}, next), caches).value();
          for (Index i = 0; i < chunk * 11; ++i) {
            CHECK(std::abs(logits.at(i) - whole.at(done * 11 + i)) <= (dtype == Dtype::f32 ? 1e-5 : 1e-12));
          }
          done += chunk;
        }
      }
    }
  }
}

TEST_CASE("transformer: checkpoints change no bit of loss and gradients, with dropout on") {
  for (const auto kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    nn::TransformerConfig config = tiny_model_config();
    config.layers = 5;
    config.dropout = 0.3;
    config.attention.kernel = kernel;
    config.dtype = Dtype::f32;
    const Tensor ids = random_tokens(3, 8, config.vocabulary);
    const nn::ForwardOptions mode = {.training = true, .key = {9}};
    nn::Transformer plain(config, RandomKey{1});
    const Run expected = run(plain, ids, mode);
    for (const int threads : {1, 2}) {
      const kernels::ThreadScope scope(threads);
      const Index layers = config.layers;
      for (const Schedule& schedule :
           {Schedule{}, Schedule{{0, layers}}, even_segments(layers, 2), even_segments(layers, layers)}) {
        CAPTURE(static_cast<int>(kernel));
        CAPTURE(threads);
        CAPTURE(schedule.size());
        nn::Transformer model(config, RandomKey{1});
        model.schedule = schedule;
        check_same_bits(run(model, ids, mode), expected);
      }
    }
  }
}

TEST_CASE("transformer: checkpoints lower the peak of memory") {
  nn::TransformerConfig config = tiny_model_config();
  config.layers = 6;
  const Tensor ids = random_tokens(16, 8, config.vocabulary);
  const auto peak = [&](Index segments) {
    nn::Transformer model(config, RandomKey{1});
    model.schedule = even_segments(config.layers, segments);
    memory::reset_peak();
    const Index before = memory::usage().live;
    run(model, ids, {.training = true});
    return memory::usage().peak - before;
  };
  CHECK(peak(6) < peak(0) / 2);
}

TEST_CASE("transformer: every layer and place draws a dropout mask of its own") {
  nn::TransformerConfig config = tiny_model_config();
  config.width = config.vocabulary = 64;
  config.bias = true;
  config.tie = false;
  config.norm = nn::NormKind::rmsnorm;
  config.dropout = 0.5;
  nn::Transformer model(config, RandomKey{1});
  // Each dropout sees one decimal digit, and the head copies: the digits of the logits are the masks.
  double digit = 0.5;
  set_all(model.token_embedding.weight, digit);
  set_all(model.position_embedding.weight, 0);
  for (nn::Block& block : model.blocks) {
    for (nn::Linear* last : {&block.attention.output, &block.mlp.down}) {
      set_all(last->weight, 0);
      digit *= 10;
      set_all(last->bias, digit);
    }
  }
  set_all(model.head.weight, 0);
  for (std::size_t i = 0; i < 64; ++i) model.head.weight.value().mut<double>()[i * 65] = 1;
  const Tensor logits = model(random_tokens(1, 1, 64), {.training = true, .key = {2}}).value();
  double largest = 0;
  for (Index i = 0; i < 64; ++i) largest = std::max(largest, logits.at(i));
  std::array<std::string, 5> masks;
  for (Index i = 0; i < 64; ++i) {
    long number =
        std::lround(logits.at(i) / largest * 11111);  // undoes the norm; 11111 is there for this key
    for (std::string& mask : masks) {
      REQUIRE(number % 10 <= 1);
      mask += static_cast<char>('0' + number % 10);
      number /= 10;
    }
  }
  for (std::size_t a = 0; a < 5; ++a) {
    const auto kept = std::count(masks[a].begin(), masks[a].end(), '1');
    CHECK((kept > 16 && kept < 48));
    for (std::size_t b = a + 1; b < 5; ++b) CHECK(masks[a] != masks[b]);
  }
}

TEST_CASE("transformer: dropout acts in training alone") {
  nn::TransformerConfig config = tiny_model_config();
  const nn::Transformer without(config, RandomKey{1});
  config.dropout = 0.5;
  const nn::Transformer with(config, RandomKey{1});
  const Tensor ids = random_tokens(2, 8, config.vocabulary);
  CHECK(distance(with(ids, {}).value(), without(ids, {}).value()) == 0);
  CHECK(distance(with(ids, {.training = true}).value(), without(ids, {}).value()) > 1e-3);
  CHECK(distance(without(ids, {.training = true}).value(), without(ids, {}).value()) == 0);
}

TEST_CASE("transformer: models of one key share all weights but those of keys and values") {
  nn::Transformer mha(with_kv_heads(4), RandomKey{1}), mqa(with_kv_heads(1), RandomKey{1});
  const auto a = nn::parameters(mha), b = nn::parameters(mqa);
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CAPTURE(a[i].name);
    const bool kv = a[i].name.find("attention.key") != std::string::npos ||
                    a[i].name.find("attention.value") != std::string::npos;
    const bool equal = distance(a[i].parameter->value(), b[i].parameter->value()) == 0;
    CHECK(equal != kv);
  }
}

TEST_CASE("transformer: no two matrices start alike, and residual matrices can start smaller") {
  nn::TransformerConfig config = with_kv_heads(4);
  nn::Transformer model(config, RandomKey{1});
  config.init.scale_residual = true;
  nn::Transformer scaled(config, RandomKey{1});
  const auto a = nn::parameters(model), b = nn::parameters(scaled);
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].parameter->value().rank() < 2) continue;
    for (std::size_t j = 0; j < i; ++j) {
      if (a[j].parameter->value().rank() == 2) {
        CHECK(a[i].parameter->value().at(0) != a[j].parameter->value().at(0));
      }
    }
    const bool residual = a[i].name.ends_with("output.weight") || a[i].name.ends_with("down.weight");
    CHECK(b[i].parameter->value().at(0) ==
          doctest::Approx(a[i].parameter->value().at(0) * (residual ? 0.5 : 1.0)));
  }
}

TEST_CASE("transformer: after a step only parameters and gradients stay in memory") {
  const memory::ByCategory before = memory::usage().live_by_category;
  const auto grown = [&](memory::Category category) {
    return live(category) - before[static_cast<std::size_t>(category)];
  };
  for (const Index segments : {0, 2}) {
    const nn::TransformerConfig config = tiny_model_config();
    nn::Transformer model(config, RandomKey{1});
    model.schedule = even_segments(config.layers, segments);
    CHECK(grown(memory::Category::parameters) >= config.parameter_count() * 8);
    {
      Tape tape;
      tape.backward(
          cross_entropy(model(random_tokens(2, 8, 11), {.training = true}), random_tokens(2, 8, 11)));
    }
    CHECK(grown(memory::Category::gradients) == grown(memory::Category::parameters));
    CHECK(grown(memory::Category::activations) == 0);
    nn::zero_grad(nn::parameters(model));
    CHECK(grown(memory::Category::gradients) == 0);
  }
  CHECK(grown(memory::Category::parameters) == 0);
}

TEST_CASE("transformer: inference with the parameters tracked keeps nothing but the logits") {
  const nn::Transformer model(tiny_model_config(), RandomKey{1});
  const Tensor ids = random_tokens(2, 8, 11);
  const Index before = live(memory::Category::activations);
  const Tensor logits = model(ids, {}).value();
  CHECK(live(memory::Category::activations) - before == logits.bytes());
}

TEST_CASE("transformer: tokens of the wrong shape or number are errors") {
  const nn::Transformer model(tiny_model_config(), RandomKey{1});
  CHECK(message_of([&] { model(random_tokens(1, 8, 11).reshape({8}), {}); }) ==
        "transformer: tokens are (8), not (B, T)");
  CHECK(message_of([&] { model(random_tokens(1, 9, 11), {}); }) ==
        "transformer: 9 tokens do not fit into a context of 8");
  CHECK(message_of([&] {
          model(Tensor::full({1, 2}, Dtype::f32, 1), {});
        }) == "tensor: elements are f32, not i32");
  std::vector<nn::KvCache> caches(1);
  CHECK(message_of([&] { model(random_tokens(1, 1, 11), caches); }) == "transformer: 1 caches for 2 layers");
}
