// Window, softcap, sinks and ALiBi in the layers, in training and with a cache.

#include <array>

#include "tests/nn/tiny.h"
#include "tests/temporary_folder.h"
#include "tilegrad/base/file.h"
#include "tilegrad/nn/weights.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

// Sinks that differ from head to head and layer to layer, as if trained.
void draw_sinks(nn::Transformer& model) {
  std::uint64_t key = 40;
  for (nn::Block& block : model.blocks) {
    Parameter& sinks = block.attention.sinks;
    if (sinks.defined())
      sinks.value() = Tensor::normal(sinks.shape(), sinks.value().dtype(), RandomKey{key++});
  }
}

nn::Transformer make_model(const nn::TransformerConfig& config) {
  nn::Transformer model(config, RandomKey{1});
  draw_sinks(model);
  return model;
}

nn::TransformerConfig long_config() {
  nn::TransformerConfig config = tiny_model_config();
  config.context = 40;
  return config;
}

// Every option alone, and all that go together.
std::vector<nn::TransformerConfig> kinds_of_attention() {
  std::vector<nn::TransformerConfig> kinds;
  const auto add = [&](auto&& change) { change(kinds.emplace_back(long_config())); };
  using C = nn::TransformerConfig;
  add([](C& c) { c.attention.window = 5; });
  add([](C& c) { c.attention.sinks = true; });
  add([](C& c) { c.attention.softcap = 0.5; });
  add([](C& c) { c.attention.positions = nn::PositionEncoding::alibi; });
  for (const auto positions : {nn::PositionEncoding::rope, nn::PositionEncoding::alibi}) {
    add([&](C& c) {
      c.attention.positions = positions;
      c.attention.window = 5;
      c.attention.sinks = true;
      c.attention.softcap = 2;
    });
  }
  return kinds;
}

// The logits of one sequence (T, V), decoded with a cache in chunks of this many tokens; the last may be
// shorter.
Tensor decode(const nn::Transformer& model, const Tensor& ids, Index chunk) {
  const Index time = ids.size(), vocabulary = model.config.vocabulary;
  Tensor all = Tensor::empty({time, vocabulary}, Dtype::f64);
  std::vector<nn::KvCache> caches = model.make_caches();
  for (Index begin = 0; begin < time; begin += chunk) {
    const Index count = std::min(chunk, time - begin);
    const auto next = ids.view<std::int32_t>().subspan(begin, static_cast<std::size_t>(count));
    const Tensor logits = model(Tensor::from<std::int32_t>({1, count}, next), caches).value();
    for (Index i = 0; i < logits.size(); ++i) {
      all.mut<double>()[begin * vocabulary + i] = logits.at(i);
    }
  }
  return all;
}

}  // namespace

TEST_CASE("attention options: decoding with a cache gives the logits of the whole forward") {
  const Tensor ids = random_tokens(1, 40, 11);
  for (nn::TransformerConfig config : kinds_of_attention()) {
    for (const auto kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
      for (const Index kv_heads : {4, 2, 1}) {
        for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
          config.attention.kernel = kernel;
          config.attention.kv_heads = kv_heads;
          config.dtype = dtype;
          const nn::Transformer model = make_model(config);
          const Tensor whole = model(ids, {}).value().cast(Dtype::f64).reshape({40, 11});
          for (const Index chunk : {1, 7, 40}) {
            CAPTURE(static_cast<int>(config.attention.positions));
            CAPTURE(static_cast<int>(kernel));
            CAPTURE(kv_heads);
            CAPTURE(chunk);
            CHECK(distance(decode(model, ids, chunk), whole) <= (dtype == Dtype::f32 ? 1e-5 : 1e-12));
          }
        }
      }
    }
  }
}

TEST_CASE("attention options: each of them changes the logits, and naive and flash attention agree on it") {
  const Tensor ids = random_tokens(2, 40, 11);
  for (nn::TransformerConfig config : kinds_of_attention()) {
    nn::TransformerConfig without = long_config();
    without.attention.positions = config.attention.positions == nn::PositionEncoding::rope
                                      ? config.attention.positions
                                      : without.attention.positions;
    const Tensor logits = make_model(config)(ids, {}).value();
    CHECK(distance(logits, make_model(without)(ids, {}).value()) > 1e-3);
    config.attention.kernel = AttentionKernel::naive;
    CHECK(distance(logits, make_model(config)(ids, {}).value()) < 1e-12);
  }
}

TEST_CASE("attention options: the gradient matches finite differences, that of the sinks too") {
  const Tensor ids = random_tokens(2, 5, 11), targets = random_tokens(2, 5, 11, 6);
  const nn::ForwardOptions mode = {.training = true, .key = {9}};
  for (const auto kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    nn::TransformerConfig config = kinds_of_attention().back();
    config.attention.kernel = kernel;
    config.attention.window = 2;
    config.dropout = 0.2;
    config.recompute = nn::Recompute::attention;
    nn::Transformer model = make_model(config);
    const Run result = run(model, ids, mode);
    const auto parameters = nn::parameters(model);
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      Parameter& parameter = *parameters[i].parameter;
      for (const Index place : {0, 2, 5, 7}) {
        CAPTURE(parameters[i].name);
        const Index at = (parameter.value().size() - 1) * place / 7;
        const double numeric = numeric_derivative(
            parameter, at, [&] { return cross_entropy(model(ids, mode), targets).value().item(); });
        CHECK(std::abs(result.grads[i].at(at) - numeric) <= 1e-8 + 1e-7 * std::abs(numeric));
        if (parameters[i].name.ends_with("sinks")) CHECK(std::abs(numeric) > 1e-6);
      }
    }
  }
}

TEST_CASE("attention options: what lies further back than the windows of all layers is hidden") {
  nn::TransformerConfig config = long_config();
  config.attention.window = 3;
  const Index reach = config.layers * 3;
  Tensor ids = random_tokens(1, 12, 11);
  for (const auto kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    config.attention.kernel = kernel;
    const nn::Transformer model = make_model(config);
    const Tensor before = model(ids, {}).value();
    Tensor changed = ids.clone();
    changed.mut<std::int32_t>()[0] = (changed.mut<std::int32_t>()[0] + 1) % 11;
    const Tensor after = model(changed, {}).value();
    for (Index i = 0; i < before.size(); ++i) {
      const Index position = i / 11;
      CAPTURE(position);
      const bool equal = before.at(i) == after.at(i);
      CHECK(equal == (position > reach));
    }
  }
}

TEST_CASE("attention options: sinks start at 0, and one that is very low is none") {
  nn::TransformerConfig config = long_config();
  const Tensor ids = random_tokens(2, 9, 11);
  const nn::Transformer without(config, RandomKey{1});
  config.attention.sinks = true;
  nn::Transformer with(config, RandomKey{1});
  CHECK(distance(with.blocks[1].attention.sinks.value(), Tensor::zeros({4}, Dtype::f64)) == 0);
  CHECK(distance(with(ids, {}).value(), without(ids, {}).value()) > 1e-3);
  for (nn::Block& block : with.blocks) set_all(block.attention.sinks, -1e3);
  CHECK(distance(with(ids, {}).value(), without(ids, {}).value()) == 0);
}

TEST_CASE("attention options: ALiBi's slopes are those of BLOOM and MPT, also for 3, 6, 12 and 20 heads") {
  const auto slopes = [](Index heads) {
    const auto of = nn::alibi_slopes(heads, Dtype::f64);
    std::vector<double> exponents;
    for (Index h = 0; h < heads; ++h) exponents.push_back(std::round(1e9 * std::log2(of.at(h))) / 1e9);
    return exponents;
  };
  using Exponents = std::vector<double>;
  CHECK(slopes(1) == Exponents{-8});
  CHECK(slopes(2) == Exponents{-4, -8});
  CHECK(slopes(3) == Exponents{-4, -8, -2});
  CHECK(slopes(6) == Exponents{-2, -4, -6, -8, -1, -3});
  CHECK(slopes(12) == Exponents{-1, -2, -3, -4, -5, -6, -7, -8, -.5, -1.5, -2.5, -3.5});
  CHECK(slopes(20) == Exponents{-.5,  -1, -1.5, -2, -2.5, -3, -3.5, -4,   -4.5,  -5,
                                -5.5, -6, -6.5, -7, -7.5, -8, -.25, -.75, -1.25, -1.75});
}

TEST_CASE("attention options: ALiBi lowers each score by the distance times 2^(-8 (h + 1) / Hq)") {
  const nn::Attention layer({.heads = 4, .kv_heads = 4, .positions = nn::PositionEncoding::alibi}, 16, false,
                            0, 0.3, 0.3, Dtype::f64, RandomKey{3});
  constexpr Index kTime = 6;
  constexpr std::array<double, 4> kSlopes = {1.0 / 4, 1.0 / 16, 1.0 / 64, 1.0 / 256};
  Tensor bias = Tensor::empty({1, 4, kTime, kTime}, Dtype::f64);
  for (Index i = 0; i < bias.size(); ++i) {
    const double distance = static_cast<double>(std::abs(i / kTime % kTime - i % kTime));
    bias.mut<double>()[i] = -kSlopes[i / (kTime * kTime)] * distance;
  }
  const Var x = random({2, kTime, 16}, 4);
  const auto heads = [&](const nn::Linear& projection) { return reshape(projection(x), {2, kTime, 4, 4}); };
  const Var expected = attention(heads(layer.query), heads(layer.key), heads(layer.value),
                                 AttentionKernel::naive, {.causal = true}, {.bias = bias});
  CHECK(distance(layer(x, {}).value(), layer.output(reshape(expected, {2, kTime, 16})).value()) < 1e-14);
}

TEST_CASE(
    "attention options: a model with ALiBi has no vectors for positions, one with sinks a logit a head") {
  nn::TransformerConfig config = long_config();
  const Index learned = config.parameter_count();
  config.attention.positions = nn::PositionEncoding::alibi;
  config.attention.sinks = true;
  nn::Transformer model(config, RandomKey{1});
  CHECK(config.parameter_count() == learned - 40 * 16 + 2 * 4);
  CHECK(nn::count(nn::parameters(model)) == config.parameter_count());
  CHECK(nn::parameters(model)[7].name == "blocks.0.attention.sinks");
}

TEST_CASE("attention options: a step of decoding copies no cache") {
  const Tensor token = random_tokens(1, 1, 11);
  for (const auto kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    nn::TransformerConfig config = kinds_of_attention().back();
    config.context = 2000;
    config.attention.kernel = kernel;
    config.attention.heads = config.attention.kv_heads = 2;
    const nn::Transformer model = make_model(config);
    std::vector<nn::KvCache> caches = model.make_caches();
    for (nn::KvCache& cache : caches) {
      std::ranges::fill(cache.keys.mut<double>(), 0);
      std::ranges::fill(cache.values.mut<double>(), 0);
      cache.length = 1990;
    }
    model(token, caches);  // makes the scratch memory that threads keep
    memory::reset_peak();
    const Index before = memory::usage().live;
    model(token, caches);
    CHECK(memory::usage().peak - before < caches[0].keys.bytes() / 2);
  }
}

TEST_CASE("attention options: with a window, a step of decoding depends on the cache within it alone") {
  for (const auto kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    const nn::Attention layer({.heads = 4, .kv_heads = 2, .kernel = kernel, .window = 3}, 16, false, 0, 0.3,
                              0.3, Dtype::f64, RandomKey{3});
    const Var past = random({1, 8, 16}, 4);
    const Var next = random({1, 2, 16}, 5);
    const auto step = [&](Index spoiled) {
      nn::KvCache cache(12, 2, 4, Dtype::f64);
      layer(past, cache);
      for (Tensor* entries : {&cache.keys, &cache.values}) {
        std::fill_n(entries->mut<double>().begin(), spoiled * 2 * 4, std::nan(""));
      }
      return layer(next, cache).value();
    };
    CHECK(distance(step(5), step(0)) == 0);  // the first new query stands at 8 and sees 5, 6, 7 and itself
    CHECK(std::isinf(distance(step(6), step(0))));
  }
}

TEST_CASE("attention options: a saved model with sinks gives the same logits when it is loaded") {
  const nn::TransformerConfig config = kinds_of_attention().back();
  nn::Transformer saved = make_model(config), loaded(config, RandomKey{2});
  const TemporaryFolder folder;
  nn::Safetensors content;
  nn::store_parameters(content, nn::parameters(saved));
  nn::save_safetensors(folder / "model", content);
  const nn::Safetensors read = nn::load_safetensors(folder / "model");
  nn::load_parameters(read, nn::parameters(loaded));
  const Tensor ids = random_tokens(1, 40, 11);
  CHECK(distance(loaded(ids, {}).value(), saved(ids, {}).value()) == 0);

  nn::TransformerConfig plain = config;
  plain.attention.sinks = false;
  nn::Transformer without(plain, RandomKey{2});
  CHECK(message_of([&] { nn::load_parameters(read, nn::parameters(without)); }).find("sinks") !=
        std::string::npos);
}
