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

TEST_CASE("options: what was asked for and has no effect is an error") {
  const auto refused = [](std::vector<std::string> words) {
    return test::message_of([&] { resolve(std::move(words)); });
  };
  CHECK(refused({"--text", "book", "--length", "5"}) == "length: has no effect with --text");
  CHECK(refused({"--task", "sort", "--pairs", "3"}) == "pairs: has no effect with --task sort");
  CHECK(refused({"--task", "copy", "--filler"}) == "filler: has no effect with --task copy");
  CHECK(refused({"--schedule", "constant", "--min-lr", "0.1"}) ==
        "min-lr: has no effect with --schedule constant");
  CHECK(resolve({"--task", "recall", "--pairs", "3"}).task.pairs == 3);
  for (const char* setting : {"beta1", "beta2"}) {
    CHECK(refused({"--optimizer", "sgd", "--" + std::string(setting), "0.9"}) ==
          fmt::format("{}: has no effect with --optimizer sgd", setting));
  }
  CHECK(refused({"--momentum", "0.9"}) == "momentum: has no effect with --optimizer adamw");
  CHECK(refused({"--optimizer", "adam", "--nesterov"}) == "nesterov: has no effect with --optimizer adam");
  CHECK(refused({"--optimizer", "adam", "--weight-decay", "0.1"}) ==
        "weight-decay: has no effect with --optimizer adam");
}

TEST_CASE("options: rate, momentum and decay follow from the optimizer unless they are given") {
  const RunConfig sgd = resolve({"--optimizer", "sgd"});
  CHECK(sgd.lr == kSgdLearningRate);
  CHECK(sgd.min_lr == doctest::Approx(kSgdLearningRate / 10));
  CHECK(sgd.optimizer.momentum == 0.9);
  const RunConfig given = resolve({"--optimizer", "sgd", "--lr", "0.5", "--momentum", "0"});
  CHECK(given.lr == 0.5);
  CHECK(given.optimizer.momentum == 0);
  CHECK(resolve({"--text", "book", "--optimizer", "adam"}).optimizer.weight_decay == 0);
  CHECK(resolve({"--text", "book"}).optimizer.weight_decay == 0.1);
  CHECK(resolve({}).optimizer.momentum == 0);
}
