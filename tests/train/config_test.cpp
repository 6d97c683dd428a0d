#include <doctest/doctest.h>

#include "tests/message_of.h"
#include "tests/train/run_program.h"
#include "tilegrad/train/run/checkpoint_policy.h"
#include "tilegrad/train/run/presets.h"

using namespace tilegrad;
using namespace tilegrad::train;

TEST_CASE("config: JSON and back is the same config, for every preset") {
  for (const auto& task : data::kTasks) {
    CAPTURE(task.name);
    RunConfig config = task_preset(task.kind);
    config.out = "somewhere";
    config.seed = ~std::uint64_t{0};
    config.lr = 1.0 / 3;
    config.model.attention.window = 7;
    config.model.attention.softcap = 1.0 / 7;
    config.model.attention.sinks = true;
    config.model.attention.positions = nn::PositionEncoding::alibi;
    const std::string text = to_json(config).dump();
    CHECK(to_json(config_from_json(text, "test")).dump() == text);
  }
  RunConfig config = text_preset();
  config.text = "book.txt";
  config.vocabulary = std::string("\0\n\xff", 3);
  const RunConfig back = config_from_json(to_json(config).dump(), "test");
  CHECK(back.vocabulary == config.vocabulary);
  CHECK(back.lr == config.lr);
}

TEST_CASE("config: a file from before window, softcap and sinks means a run without them") {
  auto json = to_json(task_preset(data::TaskKind::sort));
  CHECK(json["window"].is_null());
  CHECK(json["softcap"].is_null());
  CHECK(json["sinks"] == false);
  for (const char* key : {"window", "softcap", "sinks"}) json.erase(key);
  const nn::TransformerConfig model = config_from_json(json.dump(), "test").model;
  CHECK_FALSE(model.attention.window);
  CHECK_FALSE(model.attention.softcap);
  CHECK_FALSE(model.attention.sinks);
}

TEST_CASE("config: a missing key or a wrong type is an error that names it") {
  auto json = to_json(task_preset(data::TaskKind::sort));
  const auto error_with = [&](const char* key, const nlohmann::ordered_json& value) {
    auto damaged = json;
    damaged[key] = value;
    try {
      config_from_json(damaged.dump(), "config.json");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(error_with("layers", "3") == "config.json: `layers` is not an integer");
  CHECK(error_with("lr", "fast") == "config.json: `lr` is not a number");
  CHECK(error_with("seed", 1.5) == "config.json: `seed` is not an integer");
  CHECK(error_with("tie", 1) == "config.json: `tie` is not true or false");
  CHECK(error_with("window", 1.5) == "config.json: `window` is not an integer");
  CHECK(error_with("softcap", "high") == "config.json: `softcap` is not a number");
  CHECK(error_with("sinks", nullptr) == "config.json: `sinks` is not true or false");
  CHECK(error_with("mlp", "tanh") == "config.json: `mlp`: `tanh` is not one of gelu, relu, swiglu");
  auto unknown = json;
  unknown["widht"] = 3;
  CHECK_THROWS_WITH_AS(config_from_json(unknown.dump(), "config.json"),
                       "config.json: `widht` is not a setting", Error);
  json.erase("width");
  CHECK_THROWS_WITH_AS(config_from_json(json.dump(), "config.json"), "config.json: `width` is missing",
                       Error);
  CHECK_THROWS_WITH_AS(config_from_json("{\"a\":", "config.json"), "config.json: is not a JSON object",
                       Error);
}

TEST_CASE(
    "config: a key that stands twice, what follows the object, and a number that does not fit are errors") {
  const std::string text = to_json(task_preset(data::TaskKind::sort)).dump();
  const auto fails = [](const std::string& changed, const std::string& line) {
    CAPTURE(line);
    CHECK_THROWS_WITH_AS(config_from_json(changed, "config.json"), doctest::Contains(line.c_str()), Error);
  };
  config_from_json(text, "config.json");
  fails("{\"layers\":7," + text.substr(1), "config.json: `layers` appears twice");
  fails(text + std::string(1, '\0') + "garbage", "config.json: is not a JSON object");
  fails(text + "}", "config.json: is not a JSON object");
  auto json = to_json(task_preset(data::TaskKind::sort));
  json["steps"] = ~std::uint64_t{0};
  fails(json.dump(), "config.json: `steps` is 18446744073709551615, not between");
  json["steps"] = 10;
  json["seed"] = -1;
  fails(json.dump(), "config.json: `seed` is -1, not between 0 and 18446744073709551615");
}

TEST_CASE("checkpoint policy: every spelling is read back as it was, in the shortest way to write it") {
  for (const char* text : {"none", "attention", "mlp", "elementwise", "block", "1", "12", "budget:64MiB",
                           "budget:1.5MiB", "budget:100000", "budget:3GiB"}) {
    CHECK(to_string(parse_checkpoint_policy(text)) == text);
  }
  CHECK(to_string(parse_checkpoint_policy("budget:65536")) == "budget:64KiB");
  CHECK(parse_checkpoint_policy("budget:64 KiB") == CheckpointPolicy(MemoryBudget{65536}));
  CHECK(CheckpointPolicy() == parse_checkpoint_policy("none"));
  for (const char* wrong : {"0", "-1", "all", "2x", "", "nothing", "budget:", "budget:-1MiB"}) {
    CAPTURE(wrong);
    CHECK_THROWS_AS(parse_checkpoint_policy(wrong), Error);
  }
}

TEST_CASE(
    "checkpoint policy: it decides the schedule or the part of every block, never more segments than "
    "layers") {
  CHECK(schedule_of(parse_checkpoint_policy("none"), 3).empty());
  CHECK(schedule_of(EveryBlock{}, 3) == Schedule{{0, 1}, {1, 2}});
  CHECK(schedule_of(Segments{2}, 4) == Schedule{{0, 2}});
  CHECK(schedule_of(MemoryBudget{1000}, 3).empty());
  CHECK_THROWS_WITH_AS(schedule_of(Segments{4}, 3), "checkpoint: 4 segments of 3 layers", Error);
  CHECK(recompute_of(nn::Recompute::mlp) == nn::Recompute::mlp);
  CHECK(recompute_of(EveryBlock{}) == nn::Recompute::nothing);
}

TEST_CASE("config: a config.json of an earlier program means the same run, and keeps what it says") {
  const std::string text = R"({
  "task": "recall",
  "text": "",
  "length": 32,
  "symbols": 32,
  "pairs": 4,
  "filler": true,
  "layers": 2,
  "width": 16,
  "context": 32,
  "hidden": 0,
  "mlp": "gelu",
  "norm": "layernorm",
  "positions": "alibi",
  "dropout": 0.0,
  "bias": false,
  "tie": false,
  "init": "associative",
  "dtype": "f32",
  "attention": "naive",
  "heads": 4,
  "kv_heads": 2,
  "window": 7,
  "softcap": 30.0,
  "sinks": true,
  "kv_init": "fresh",
  "checkpoint": "2",
  "lr": 0.003,
  "min_lr": 0.00030000000000000003,
  "warmup": 1,
  "weight_decay": 0.0,
  "beta1": 0.9,
  "beta2": 0.95,
  "clip": 1.0,
  "steps": 12,
  "batch": 4,
  "eval_every": 1,
  "save_every": 500,
  "seed": 1,
  "threads": 0,
  "detect_anomaly": false,
  "out": "runs/old"
})";
  const RunConfig config = config_from_json(text, "test");
  const nn::AttentionConfig& attention = config.model.attention;
  CHECK(attention.heads == 4);
  CHECK(attention.kv_heads == 2);
  CHECK(attention.kernel == AttentionKernel::naive);
  CHECK(attention.positions == nn::PositionEncoding::alibi);
  CHECK(attention.window == 7);
  CHECK(attention.softcap == 30);
  CHECK(attention.sinks);
  CHECK(config.checkpoint == CheckpointPolicy(Segments{2}));
  CHECK(config.optimizer.kind == OptimizerKind::adamw);
  const auto written = to_json(config);
  const auto earlier = nlohmann::ordered_json::parse(text);
  for (const auto& setting : earlier.items()) {
    CAPTURE(setting.key());
    CHECK(written.at(setting.key()) == setting.value());
  }
}
