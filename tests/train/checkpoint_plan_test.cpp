#include "tilegrad/autograd/checkpoint_plan.h"

#include <algorithm>

#include "tests/nn/tiny.h"
#include "tests/recomputed_ops.h"
#include "tilegrad/train/run/stage_costs.h"

using namespace tilegrad;
using namespace tilegrad::test;
using train::measure_stages;

namespace {

// A chain of random costs that hang together as those of real blocks do.
ChainCost random_chain(Index blocks, std::uint64_t seed) {
  RandomStream random(RandomKey{seed});
  const auto draw = [&](std::uint64_t least, std::uint64_t most) {
    return static_cast<Index>(least + random.below(most - least + 1));
  };
  const auto stage = [&] {
    StageCost cost = {.output = draw(1, 9), .saved = draw(0, 30)};
    cost.forward_peak = cost.output + draw(0, 9);
    cost.recorded_peak = cost.output + cost.saved + draw(0, 5);
    cost.backward_peak = cost.output + cost.saved + draw(0, 9);
    cost.replay_peak = cost.output + std::max(cost.recorded_peak, cost.backward_peak);
    cost.gradients = draw(0, 4);
    cost.nanoseconds = draw(1, 20);
    cost.ops = draw(1, 9);
    cost.replay_nanoseconds = draw(1, 20);
    cost.replay_ops = draw(1, 9);
    return cost;
  };
  ChainCost chain = {.resident = draw(0, 50), .prologue = stage()};
  for (Index i = 0; i < blocks; ++i) chain.blocks.push_back(stage());
  chain.epilogue = stage();
  chain.epilogue.output = 0;
  return chain;
}

// Every schedule of blocks [begin, end), segments in segments included; `inside` is the segment in which all
// this happens, which cannot hold itself.
std::vector<Schedule> all_schedules(Index begin, Index end, Segment inside = {-1, -1}) {
  if (begin == end) return {{}};
  std::vector<Schedule> all = all_schedules(begin + 1, end, inside);  // the first block is kept
  for (Index middle = begin + 1; middle <= end; ++middle) {
    if (begin == inside.begin && middle == inside.end) continue;
    for (const Schedule& within : all_schedules(begin, middle, {begin, middle})) {
      for (const Schedule& rest : all_schedules(middle, end, inside)) {
        Schedule schedule = {{.begin = begin, .end = middle, .inside = within}};
        schedule.insert(schedule.end(), rest.begin(), rest.end());
        all.push_back(std::move(schedule));
      }
    }
  }
  return all;
}

// How far one step raises the live bytes.
Index measured_peak(nn::Transformer& model, const Tensor& ids, const Tensor& targets,
                    const nn::ForwardOptions& mode) {
  const Index before = memory::usage().live;
  memory::reset_peak();
  {
    Tape tape;
    const Var loss = model.loss(ids, targets, mode);
    tape.backward(loss);
  }
  const Index peak = memory::usage().peak;
  nn::zero_grad(nn::parameters(model));
  return peak - before;
}

// Every kind of norm and mlp, with and without biases, and both kernels.
std::vector<nn::TransformerConfig> policy_configs() {
  std::vector<nn::TransformerConfig> configs;
  for (const auto norm : {nn::NormKind::layernorm, nn::NormKind::rmsnorm}) {
    for (const auto mlp : {nn::MlpKind::gelu, nn::MlpKind::relu, nn::MlpKind::swiglu}) {
      nn::TransformerConfig config = tiny_model_config();
      config.context = 48;
      config.layers = 4;
      config.norm = norm;
      config.mlp = mlp;
      config.bias = mlp == nn::MlpKind::relu;
      config.attention.positions =
          mlp == nn::MlpKind::swiglu ? nn::PositionEncoding::rope : nn::PositionEncoding::learned;
      config.attention.kernel =
          norm == nn::NormKind::rmsnorm ? AttentionKernel::naive : AttentionKernel::flash;
      config.dropout = 0.1;
      configs.push_back(config);
    }
  }
  return configs;
}

std::string_view activation_name(nn::MlpKind mlp) {
  switch (mlp) {
    case nn::MlpKind::relu:
      return "relu";
    case nn::MlpKind::swiglu:
      return "swiglu";
    case nn::MlpKind::gelu:
      break;
  }
  return "gelu";
}

}  // namespace

TEST_CASE("checkpoint plan: no schedule of a short chain is better, whatever the budget") {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const ChainCost chain = random_chain(1 + static_cast<Index>(seed % 5), seed);
    std::vector<ScheduleCost> costs;
    for (const Schedule& schedule : all_schedules(0, std::ssize(chain.blocks))) {
      costs.push_back(cost_of(chain, schedule));
    }
    const auto by_peak = [](const auto& a, const auto& b) { return a.peak < b.peak; };
    const Index least = std::min_element(costs.begin(), costs.end(), by_peak)->peak;
    const Index most = std::max_element(costs.begin(), costs.end(), by_peak)->peak;
    CHECK(least_budget(chain) == least);
    for (Index budget = least; budget <= most; ++budget) {
      Index best = std::numeric_limits<Index>::max();
      for (const ScheduleCost& cost : costs) {
        if (cost.peak <= budget) best = std::min(best, cost.nanoseconds);
      }
      const ScheduleCost planned = cost_of(chain, plan_checkpoints(chain, budget));
      REQUIRE(planned.peak <= budget);
      REQUIRE(planned.nanoseconds == best);
    }
  }
}

TEST_CASE("checkpoint plan: plenty of memory recomputes nothing, the least budget can be met, less cannot") {
  const ChainCost chain = random_chain(8, 3);
  CHECK(plan_checkpoints(chain, 1 << 20).empty());
  const Index least = least_budget(chain);
  CHECK(cost_of(chain, plan_checkpoints(chain, least)).peak == least);
  CHECK(message_of([&] { plan_checkpoints(chain, least - 1); }) ==
        "checkpoint: a budget of " + std::to_string(least - 1) + " B (" + std::to_string(least - 1) +
            " bytes) is below the minimum, " + std::to_string(least) + " B (" + std::to_string(least) +
            " bytes)");
}

TEST_CASE("checkpoint plan: the best schedules trade peak for time, step by step") {
  const auto steps = best_schedules(random_chain(7, 5));
  CHECK(steps.size() > 3);
  CHECK(steps.back().nanoseconds == 0);
  for (std::size_t i = 1; i < steps.size(); ++i) {
    CHECK(steps[i].peak > steps[i - 1].peak);
    CHECK(steps[i].nanoseconds < steps[i - 1].nanoseconds);
  }
}

TEST_CASE("checkpoint plan: many blocks of one size, whose times differ, are planned at once") {
  ChainCost chain = random_chain(1, 7);
  RandomStream random(RandomKey{8});
  const StageCost block = chain.blocks[0];
  for (int i = 0; i < 23; ++i) {
    chain.blocks.push_back(block);
    StageCost& cost = chain.blocks.back();
    cost.nanoseconds = cost.replay_nanoseconds = static_cast<Index>(1000 + random.below(100));
  }
  const Index least = least_budget(chain), most = cost_of(chain, {}).peak;
  const ScheduleCost middle = cost_of(chain, plan_checkpoints(chain, (least + most) / 2));
  CHECK(middle.peak <= (least + most) / 2);
  CHECK(middle.nanoseconds < cost_of(chain, even_segments(24, 24)).nanoseconds);
}

TEST_CASE(
    "checkpoint plan: even segments differ by one block at most, and the last one is not checkpointed") {
  CHECK(even_segments(5, 0).empty());
  CHECK(even_segments(5, 1).empty());
  CHECK(even_segments(5, 2) == Schedule{{0, 2}});
  CHECK(even_segments(5, 3) == Schedule{{0, 1}, {1, 3}});
  CHECK(even_segments(3, 3) == Schedule{{0, 1}, {1, 2}});
}

TEST_CASE("checkpoint plan: the predicted peak of a transformer is the measured one, and its bits stay") {
  nn::TransformerConfig config = tiny_model_config();
  config.layers = 6;
  config.context = 48;
  config.dropout = 0.1;
  nn::Transformer model(config, RandomKey{1});
  const nn::ForwardOptions mode = {.training = true, .key = {4}};
  const Tensor ids = random_tokens(2, 48, config.vocabulary);
  const Tensor targets = random_tokens(2, 48, config.vocabulary, 6);
  const Run expected = run(model, ids, mode);
  const ChainCost chain = measure_stages(model, ids, targets, mode);

  std::vector<Schedule> schedules = {{}, even_segments(6, 6), even_segments(6, 2), {{1, 5, {{1, 3}}}}};
  const Index least = least_budget(chain), most = cost_of(chain, {}).peak;
  for (const double share : {0.0, 0.25, 0.5, 0.75}) {
    schedules.push_back(
        plan_checkpoints(chain, least + static_cast<Index>(share * static_cast<double>(most - least))));
    CHECK_FALSE(schedules.back().empty());
  }
  for (const Schedule& schedule : schedules) {
    model.schedule = schedule;
    const auto measured = static_cast<double>(measured_peak(model, ids, targets, mode));
    const auto predicted = static_cast<double>(cost_of(chain, schedule).peak - chain.resident);
    CHECK(predicted == doctest::Approx(measured).epsilon(0.01));
    RecomputedOps recomputed;
    {
      const ListenScope listening(recomputed);
      check_same_bits(expected, run(model, ids, mode));
    }
    CHECK(std::ssize(recomputed.ops) == cost_of(chain, schedule).ops);
  }
}

TEST_CASE("checkpoint policies: change no bit, with dropout on, and save the memory that is predicted" *
          doctest::test_suite("slow")) {
  for (const nn::TransformerConfig& plain_config : policy_configs()) {
    const nn::ForwardOptions mode = {.training = true, .key = {4}};
    const Tensor ids = random_tokens(2, 48, plain_config.vocabulary);
    const Tensor targets = random_tokens(2, 48, plain_config.vocabulary, 6);
    nn::Transformer plain(plain_config, RandomKey{1});
    const Run expected = run(plain, ids, mode);
    const Index everything = measured_peak(plain, ids, targets, mode);
    for (const auto recompute : {nn::Recompute::attention, nn::Recompute::mlp, nn::Recompute::elementwise}) {
      nn::TransformerConfig config = plain_config;
      config.recompute = recompute;
      nn::Transformer model(config, RandomKey{1});
      CAPTURE(static_cast<int>(recompute));
      check_same_bits(expected, run(model, ids, mode));
      const Index peak = measured_peak(model, ids, targets, mode);
      CHECK(peak < everything);
      const ChainCost chain = measure_stages(model, ids, targets, mode);
      CHECK(static_cast<double>(cost_of(chain, {}).peak - chain.resident) ==
            doctest::Approx(static_cast<double>(peak)).epsilon(0.01));
    }
  }
}

TEST_CASE("checkpoint policies: elementwise keeps neither norms nor activations, and repeats nothing else") {
  for (const nn::TransformerConfig& plain_config : policy_configs()) {
    const nn::ForwardOptions mode = {.training = true, .key = {4}};
    const Tensor ids = random_tokens(2, 48, plain_config.vocabulary);
    nn::TransformerConfig config = plain_config;
    config.recompute = nn::Recompute::elementwise;
    nn::Transformer plain(plain_config, RandomKey{1}), model(config, RandomKey{1});
    const auto kept = [&](const nn::Transformer& m) {
      const Index before = memory::usage().live;
      Tape tape;
      const Var y = m(ids, mode);
      return memory::usage().live - before;
    };
    const Index row = 2 * 48 * bytes_of(config.dtype);
    CHECK(kept(plain) - kept(model) == config.layers * row * (2 * config.width + config.hidden_size()));

    RecomputedOps recomputed;
    {
      const ListenScope listening(recomputed);
      run(model, ids, mode);
    }
    const Index layers = config.layers;
    CHECK(std::ssize(recomputed.ops) == 3 * layers);
    CHECK(recomputed.count(config.norm == nn::NormKind::layernorm ? "layernorm" : "rmsnorm") == 2 * layers);
    CHECK(recomputed.count(activation_name(config.mlp)) == layers);
  }
}
