#include <doctest/doctest.h>

#include "tests/message_of.h"
#include "tests/train/run_program.h"
#include "tilegrad/train/app/run_options.h"
#include "tilegrad/train/run/presets.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

// The config that these words of a command line end up as.
RunConfig resolve(std::vector<std::string> words) {
  CLI::App app("", "train");
  RunOptions options(app);
  std::reverse(words.begin(), words.end());  // as CLI11 wants them
  app.parse(words);
  return options.resolve();
}

}  // namespace

TEST_CASE("options: a task brings its preset, a text another") {
  const RunConfig sort = resolve({"--task", "sort"});
  CHECK(sort.model.layers == 3);
  CHECK(sort.model.width == 48);
  CHECK(sort.model.context == 11);
  CHECK(sort.init == InitKind::associative);
  CHECK_FALSE(sort.model.tie);
  CHECK(sort.out == "runs/sort");
  const RunConfig text = resolve({"--text", "book.txt"});
  CHECK(text.model.layers == 4);
  CHECK(text.model.context == 64);
  CHECK(text.batch == 12);
  CHECK(text.warmup == 100);
  CHECK(text.init == InitKind::gpt2);
  CHECK(text.model.tie);
  CHECK(text.is_text());
}

TEST_CASE("options: the command line wins over the file, the file over the preset") {
  const TemporaryFolder folder;
  write_file(folder / "a.json",
             R"({"layers": 5, "width": 96, "tie": true, "kv_init": "pooled", "batch": 7})");
  const RunConfig config = resolve({"--width", "24", "--task", "sort", "--config", folder / "a.json"});
  CHECK(config.model.width == 24);
  CHECK(config.model.layers == 5);
  CHECK(config.model.tie);
  CHECK(config.kv_init == KvInit::pooled);
  CHECK(config.batch == 7);
  CHECK(config.model.attention.heads == 3);
}

TEST_CASE("options: the task may come from the file, and still brings its preset") {
  const TemporaryFolder folder;
  write_file(folder / "a.json", R"({"lr": 0.5, "task": "induction"})");
  const RunConfig config = resolve({"--config", folder / "a.json"});
  CHECK(config.task.kind == data::TaskKind::induction);
  CHECK(config.model.layers == 2);
  CHECK(config.lr == 0.5);
}

TEST_CASE("options: what follows from another setting follows it unless it is given") {
  const RunConfig config = resolve({"--heads", "6", "--lr", "0.01", "--steps", "50", "--length", "9"});
  CHECK(config.model.attention.kv_heads == 6);
  CHECK(config.min_lr == doctest::Approx(0.001));
  CHECK(config.warmup == 5);
  CHECK(config.eval_every == 5);
  CHECK(config.model.context == 17);
  const RunConfig given = resolve({"--heads", "6", "--kv-heads", "2", "--warmup", "20", "--context", "40"});
  CHECK(given.model.attention.kv_heads == 2);
  CHECK(given.warmup == 20);
  CHECK(given.model.context == 40);
}

TEST_CASE("options: a name that is not valid UTF-8 is an error of one line") {
  CHECK(test::message_of([] { resolve({"--out", "a\xff"}); }) == "out: `a\xff` is not valid UTF-8");
  CHECK(test::message_of([] { resolve({"--text", "a\xff"}); }) == "text: `a\xff` is not valid UTF-8");
  CHECK(resolve({"--out", "Übung"}).out == "Übung");
}

TEST_CASE("options: a flag can be taken back") {
  CHECK(resolve({"--tie"}).model.tie);
  CHECK_FALSE(resolve({"--text", "x", "--no-tie"}).model.tie);
}

TEST_CASE("options: what attention may have is off unless it is given") {
  const nn::AttentionConfig plain = resolve({}).model.attention;
  CHECK_FALSE(plain.window);
  CHECK_FALSE(plain.softcap);
  CHECK_FALSE(plain.sinks);
  const TemporaryFolder folder;
  write_file(folder / "a.json", R"({"softcap": 1.5, "window": 3})");
  const nn::AttentionConfig given =
      resolve({"--config", folder / "a.json", "--window", "0", "--sinks", "--positions", "alibi"})
          .model.attention;
  CHECK(given.window == 0);
  CHECK(given.softcap == 1.5);
  CHECK(given.sinks);
  CHECK(given.positions == nn::PositionEncoding::alibi);
}

TEST_CASE("options: the config.json of any run is a file for --config") {
  const TemporaryFolder folder;
  RunConfig task = task_preset(data::TaskKind::recall);
  task.out = "runs/a#1, my dir";
  task.seed = ~std::uint64_t{0};
  RunConfig text = text_preset();
  text.text = "book, volume 1 #2.txt";
  text.vocabulary = "ab";
  text.out = "runs/text";
  for (const RunConfig& config : {task, text}) {
    write_file(folder / "config.json", to_json(config).dump());
    RunConfig back = resolve({"--config", folder / "config.json"});
    back.vocabulary = config.vocabulary;  // a fact of the text, which is read again
    CHECK(to_json(back) == to_json(config));
  }
  CHECK(resolve({"--config", folder / "config.json", "--task", "copy"}).task.kind == data::TaskKind::copy);
  CHECK_FALSE(resolve({"--config", folder / "config.json", "--task", "copy"}).is_text());
  CHECK(resolve({"--config", folder / "config.json", "--lr", "0.25"}).lr == 0.25);
}

TEST_CASE("options: a config file with an unknown setting or a bad value is an error that names it") {
  const TemporaryFolder folder;
  const auto error_of = [&](const std::string& content) {
    write_file(folder / "a", content);
    return test::message_of([&] { resolve({"--config", folder / "a"}); });
  };
  CHECK(error_of(R"({"layer": 5})") == (folder / "a") + ": `layer` is not a setting");
  CHECK(error_of(R"({"layers": "many"})") == (folder / "a") + ": `layers` is not an integer");
  CHECK(error_of("layers=5\n") ==
        "config: " + (folder / "a") + R"(: is not JSON, such as {"layers": 2, "lr": 0.01})");
  CHECK(error_of("[]") == (folder / "a") + ": is not a JSON object");
  CHECK(test::message_of([&] { resolve({"--config", folder / "c"}); }) == (folder / "c") + ": no such file");
  CHECK(test::message_of([&] { resolve({"--config", ""}); }) == "config: names no file");
}

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
  fails("{\"layers\":7," + text.substr(1), "config.json: `layers` stands there twice");
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
  CHECK(schedule_of(EveryBlock{}, 3) == Schedule{{0, 1}, {1, 2}, {2, 3}});
  CHECK(schedule_of(Segments{2}, 4) == Schedule{{0, 2}, {2, 4}});
  CHECK(schedule_of(MemoryBudget{1000}, 3).empty());
  CHECK_THROWS_WITH_AS(schedule_of(Segments{4}, 3), "checkpoint: 4 segments of 3 layers", Error);
  CHECK(recompute_of(nn::Recompute::mlp) == nn::Recompute::mlp);
  CHECK(recompute_of(EveryBlock{}) == nn::Recompute::nothing);
}

TEST_CASE("config: a config.json of an earlier program means the same run, and is written as it was") {
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
  CHECK(to_json(config).dump(2) == text);
}
