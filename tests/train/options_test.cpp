#include <doctest/doctest.h>

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
  write_file(folder / "a.toml", "layers=5\nwidth=96\ntie=true\nkv-init=\"pooled\"\n[train]\nbatch=7\n");
  const RunConfig config = resolve({"--width", "24", "--task", "sort", "--config", folder / "a.toml"});
  CHECK(config.model.width == 24);
  CHECK(config.model.layers == 5);
  CHECK(config.model.tie);
  CHECK(config.kv_init == KvInit::pooled);
  CHECK(config.batch == 7);
  CHECK(config.model.attention.heads == 3);
}

TEST_CASE("options: the task may come from the file, and still brings its preset") {
  const TemporaryFolder folder;
  write_file(folder / "a.toml", "lr=0.5\ntask=induction\n");
  const RunConfig config = resolve({"--config", folder / "a.toml"});
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
  write_file(folder / "a.toml", "softcap=1.5\nwindow=3\n");
  const nn::AttentionConfig given =
      resolve({"--config", folder / "a.toml", "--window", "0", "--sinks", "--positions", "alibi"})
          .model.attention;
  CHECK(given.window == 0);
  CHECK(given.softcap == 1.5);
  CHECK(given.sinks);
  CHECK(given.positions == nn::Positions::alibi);
}

TEST_CASE("options: a config file with an unknown setting or a bad value is an error that names it") {
  const TemporaryFolder folder;
  write_file(folder / "a", "layer=5\n");
  CHECK_THROWS_WITH_AS(resolve({"--config", folder / "a"}),
                       doctest::Contains("has an unknown setting `layer`"), Error);
  write_file(folder / "b", "layers=many\n");
  CHECK_THROWS_WITH_AS(resolve({"--config", folder / "b"}), doctest::Contains("many"), Error);
  CHECK_THROWS_WITH_AS(resolve({"--config", folder / "c"}), doctest::Contains("cannot be read"), Error);
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
    config.model.attention.positions = nn::Positions::alibi;
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
  CHECK(error_with("seed", -1) == "config.json: `seed` is not an integer");
  CHECK(error_with("tie", 1) == "config.json: `tie` is not true or false");
  CHECK(error_with("window", 1.5) == "config.json: `window` is not an integer");
  CHECK(error_with("softcap", "high") == "config.json: `softcap` is not a number");
  CHECK(error_with("sinks", nullptr) == "config.json: `sinks` is not true or false");
  CHECK(error_with("mlp", "tanh") == "config.json: `mlp`: `tanh` is not one of gelu, relu, swiglu");
  json.erase("width");
  CHECK_THROWS_WITH_AS(config_from_json(json.dump(), "config.json"), "config.json: `width` is missing",
                       Error);
  CHECK_THROWS_WITH_AS(config_from_json("{\"a\":", "config.json"), "config.json: is not a JSON object",
                       Error);
}

TEST_CASE("config: checkpoint is none, block or a number of segments") {
  RunConfig config = task_preset(data::TaskKind::sort);
  const auto segments = [&](const std::string& checkpoint) {
    config.checkpoint = checkpoint;
    return config.model_for(4).segments;
  };
  CHECK(segments("none") == 0);
  CHECK(segments("block") == 3);
  CHECK(segments("2") == 2);
  CHECK_THROWS_WITH_AS(segments("4"), "checkpoint: 4 segments of 3 layers", Error);
  for (const char* wrong : {"0", "-1", "all", "2x", ""}) CHECK_THROWS_AS(segments(wrong), Error);
}
