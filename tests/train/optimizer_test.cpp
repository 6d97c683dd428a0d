#include "tilegrad/train/run/optimizer.h"

#include <doctest/doctest.h>

#include <set>
#include <string>

#include "tests/message_of.h"
#include "tests/temporary_folder.h"
#include "tilegrad/base/file.h"
#include "tilegrad/train/run/presets.h"
#include "tilegrad/train/run/run_folder.h"
#include "tilegrad/train/run/trainer.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

RunConfig config_with(const OptimizerSettings& optimizer, const std::string& out = "unused") {
  RunConfig config = task_preset(data::TaskKind::sort);
  config.model.layers = 1;
  config.model.width = 12;
  config.batch = 4;
  config.steps = 8;
  config.optimizer = optimizer;
  config.out = out;
  return config;
}

double loss_after_four_steps(const OptimizerSettings& optimizer) {
  Trainer trainer(config_with(optimizer));
  double loss = 0;
  for (int step = 0; step < 4; ++step) loss = trainer.step().loss;
  return loss;
}

}  // namespace

TEST_CASE("optimizer: each kind takes its own steps, and adam those of adamw without decay") {
  const double adamw = loss_after_four_steps({.kind = OptimizerKind::adamw, .weight_decay = 0.5});
  const double adam = loss_after_four_steps({.kind = OptimizerKind::adam, .weight_decay = 0.5});
  CHECK(adam == loss_after_four_steps({.kind = OptimizerKind::adamw, .weight_decay = 0}));
  const double plain = loss_after_four_steps({.kind = OptimizerKind::sgd, .weight_decay = 0});
  const double momentum =
      loss_after_four_steps({.kind = OptimizerKind::sgd, .weight_decay = 0, .momentum = 0.9});
  const double nesterov = loss_after_four_steps(
      {.kind = OptimizerKind::sgd, .weight_decay = 0, .momentum = 0.9, .nesterov = true});
  const double decayed = loss_after_four_steps(
      {.kind = OptimizerKind::sgd, .weight_decay = 0.5, .momentum = 0.9, .nesterov = true});
  CHECK(std::set<double>{adamw, adam, plain, momentum, nesterov, decayed}.size() == 6);
}

TEST_CASE("optimizer: a run that was saved and loaded goes on with the same bits, whatever the kind") {
  for (const OptimizerSettings& settings :
       {OptimizerSettings{.kind = OptimizerKind::adamw}, OptimizerSettings{.kind = OptimizerKind::adam},
        OptimizerSettings{.kind = OptimizerKind::sgd},
        OptimizerSettings{.kind = OptimizerKind::sgd, .momentum = 0.9},
        OptimizerSettings{.kind = OptimizerKind::sgd, .momentum = 0.9, .nesterov = true}}) {
    const test::TemporaryFolder folder;
    const RunConfig config = config_with(settings, folder / "run");
    const RunFolder run(config.out);
    run.start(config);
    Trainer whole(config);
    for (int step = 0; step < 3; ++step) whole.step();
    run.save(whole);
    Trainer resumed(run.read_config());
    run.load_state(resumed);
    CHECK(resumed.config().optimizer.kind == settings.kind);
    CHECK(resumed.optimizer().steps() == 3);
    CHECK(std::ssize(resumed.optimizer().state()) ==
          state_tensors(settings) * std::ssize(nn::parameters(resumed.model())));
    for (int step = 0; step < 4; ++step) CHECK(whole.step().loss == resumed.step().loss);
    const RunFolder other(folder / "other");
    other.start(config);
    other.save(whole);
    run.save(resumed);
    CHECK(read_file(run.state_file()) == read_file(other.state_file()));
  }
}

TEST_CASE("optimizer: what makes no sense is an error") {
  const auto refused = [](const OptimizerSettings& settings) {
    return test::message_of([&] { validate(settings); });
  };
  CHECK(refused({}).empty());
  CHECK(refused({.kind = OptimizerKind::sgd, .momentum = 1}) == "momentum: is 1, not in [0, 1)");
  CHECK(refused({.kind = OptimizerKind::sgd, .nesterov = true}) ==
        "nesterov: has no effect without momentum");
  CHECK(refused({.beta2 = 1}) == "beta2: is 1, not in [0, 1)");
  CHECK(refused({.weight_decay = -1}) == "weight-decay: is -1, must not be negative");
}

TEST_CASE("optimizer: rate, momentum and decay follow from the kind unless they are given") {
  const auto derived = [](OptimizerKind kind, const std::set<std::string_view>& given) {
    RunConfig config = text_preset();
    config.optimizer.kind = kind;
    derive_settings(config, [&](std::string_view setting) { return given.contains(setting); });
    return config;
  };
  CHECK(derived(OptimizerKind::adamw, {}).lr == 0.001);
  CHECK(derived(OptimizerKind::adamw, {}).optimizer.weight_decay == 0.1);
  CHECK(derived(OptimizerKind::adam, {}).optimizer.weight_decay == 0);
  const RunConfig sgd = derived(OptimizerKind::sgd, {});
  CHECK(sgd.lr == kSgdLearningRate);
  CHECK(sgd.min_lr == doctest::Approx(kSgdLearningRate / 10));
  CHECK(sgd.optimizer.momentum == 0.9);
  CHECK(derived(OptimizerKind::sgd, {"lr", "momentum"}).lr == 0.001);
  CHECK(derived(OptimizerKind::sgd, {"lr", "momentum"}).optimizer.momentum == 0);
  CHECK(has_effect("momentum", sgd.optimizer));
  CHECK_FALSE(has_effect("beta2", sgd.optimizer));
  CHECK_FALSE(has_effect("nesterov", OptimizerSettings{}));
  CHECK_FALSE(has_effect("weight-decay", {.kind = OptimizerKind::adam}));
}
