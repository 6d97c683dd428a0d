#include <doctest/doctest.h>

#include "tests/train/run_program.h"
#include "tilegrad/train/run/learning_rate.h"
#include "tilegrad/train/run/metrics.h"
#include "tilegrad/train/run/trainer.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

// The loss of every step, as it stands in the file.
std::vector<double> losses(const std::string& folder) {
  std::vector<double> out;
  for (const StepReport& step : read_metrics(folder + "/metrics.jsonl").steps) out.push_back(step.loss);
  return out;
}

}  // namespace

TEST_CASE("train: two runs write the same files, apart from times") {
  const TemporaryFolder folder;
  check_success(run_program(tiny_training(folder / "a")));
  check_success(run_program(tiny_training(folder / "b")));
  CHECK(timeless_metrics(folder / "a") == timeless_metrics(folder / "b"));
  for (const char* file : {"/model.safetensors", "/state.safetensors"}) {
    CHECK(read_file((folder / "a") + file) == read_file((folder / "b") + file));
  }
}

TEST_CASE("train: another seed makes another run") {
  const TemporaryFolder folder;
  check_success(run_program(tiny_training(folder / "a")));
  check_success(run_program(tiny_training(folder / "b", {"--seed", "2"})));
  CHECK(losses(folder / "a") != losses(folder / "b"));
}

TEST_CASE("train: the number of threads changes no bit") {
  const TemporaryFolder folder;
  check_success(run_program(tiny_training(folder / "a", {"--threads", "1"})));
  check_success(run_program(tiny_training(folder / "b", {"--threads", "3"})));
  CHECK(losses(folder / "a") == losses(folder / "b"));
  CHECK(read_file(folder / "a/model.safetensors") == read_file(folder / "b/model.safetensors"));
}

TEST_CASE("train: a stopped and resumed run equals the uninterrupted one, bit for bit") {
  const TemporaryFolder folder;
  check_success(run_program(tiny_training(folder / "whole")));
  check_success(run_program(tiny_training(folder / "parts", {"--stop-after", "3"})));
  check_success(run_program({"train", "--resume", folder / "parts", "--quiet", "--stop-after", "4"}));
  check_success(run_program({"train", "--resume", folder / "parts", "--quiet"}));
  CHECK(timeless_metrics(folder / "whole") == timeless_metrics(folder / "parts"));
  for (const char* file : {"/model.safetensors", "/state.safetensors"}) {
    CHECK(read_file((folder / "whole") + file) == read_file((folder / "parts") + file));
  }
}

TEST_CASE("train: resuming drops what was written after the saved step, and a last line cut in half") {
  const TemporaryFolder folder;
  check_success(run_program(tiny_training(folder / "whole")));
  check_success(run_program(tiny_training(folder / "parts", {"--stop-after", "6"})));
  const std::string metrics = folder / "parts/metrics.jsonl";
  write_file(metrics, read_file(metrics) + "{\"step\":7,\"loss\":1}\n{\"step\":8,\"lo");
  check_success(run_program({"train", "--resume", folder / "parts", "--quiet"}));
  CHECK(timeless_metrics(folder / "whole") == timeless_metrics(folder / "parts"));
}

TEST_CASE("train: a crash between the writes of state and model costs nothing") {
  const TemporaryFolder folder;
  check_success(run_program(tiny_training(folder / "whole")));
  check_success(run_program(tiny_training(folder / "parts", {"--stop-after", "3"})));
  const std::string model = read_file(folder / "parts/model.safetensors");
  check_success(run_program({"train", "--resume", folder / "parts", "--quiet", "--stop-after", "3"}));
  write_file(folder / "parts/model.safetensors", model);  // as if the second save had got no further
  check_success(run_program({"train", "--resume", folder / "parts", "--quiet"}));
  CHECK(read_file(folder / "whole/model.safetensors") == read_file(folder / "parts/model.safetensors"));
}

TEST_CASE("train: checkpointing changes no loss and no weight, with dropout on, and saves memory" *
          doctest::test_suite("slow")) {
  const TemporaryFolder folder;
  check_success(run_program(tiny_training(folder / "none")));
  for (const char* plan : {"block", "1", "attention", "mlp", "elementwise", "budget:1GiB"}) {
    const std::string out = folder / plan;
    check_success(run_program(tiny_training(out, {"--checkpoint", plan})));
    CHECK(losses(folder / "none") == losses(out));
    CHECK(read_file(folder / "none/model.safetensors") == read_file(out + "/model.safetensors"));
  }
  const auto peak = [](const std::string& run) {
    return read_metrics(run + "/metrics.jsonl").steps.back().peak_bytes;
  };
  CHECK(peak(folder / "block") < peak(folder / "none"));
}

TEST_CASE("train: a budget of memory is kept to, and changes no loss") {
  RunConfig config = tiny_config();
  config.model.layers = 6;
  config.batch = 32;
  const auto first_step = [&](const std::string& checkpoint) {
    config.checkpoint = parse_checkpoint_policy(checkpoint);
    Trainer trainer(config);
    return trainer.step();
  };
  const StepReport all = first_step("none"), least = first_step("block");
  const Index budget = (all.peak_bytes + least.peak_bytes) / 2;
  const StepReport kept = first_step("budget:" + std::to_string(budget));
  CHECK(kept.peak_bytes <= budget);
  CHECK(kept.peak_bytes > least.peak_bytes);
  CHECK(kept.loss == all.loss);
  CHECK(kept.grad_norm == all.grad_norm);
}

TEST_CASE("train: naive and flash attention learn alike") {
  const TemporaryFolder folder;
  check_success(run_program(tiny_training(folder / "naive", {"--attention", "naive"})));
  check_success(run_program(tiny_training(folder / "flash", {"--attention", "flash"})));
  const auto a = losses(folder / "naive"), b = losses(folder / "flash");
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == doctest::Approx(b[i]).epsilon(1e-4));
}

TEST_CASE("train: every kind of model takes a step") {
  const TemporaryFolder folder;
  const std::vector<std::vector<std::string>> kinds = {
      {"--mlp", "swiglu", "--norm", "rmsnorm", "--positions", "rope", "--tie"},
      {"--mlp", "relu", "--bias", "--kv-heads", "1", "--kv-init", "pooled"},
      {"--dtype", "f64", "--hidden", "20", "--detect-anomaly"}};
  for (auto kind : kinds) {
    CAPTURE(kind[1]);
    kind.push_back("--overwrite");
    check_success(run_program(tiny_training(folder / "run", kind)));
    CHECK(losses(folder / "run").size() == 12);
  }
}

TEST_CASE(
    "train: a run with window, softcap, sinks and ALiBi is saved and resumed, and both kernels learn alike" *
    doctest::test_suite("slow")) {
  const TemporaryFolder folder;
  const std::vector<std::string> options = {"--window", "4",           "--softcap", "5",
                                            "--sinks",  "--positions", "alibi"};
  const auto with = [&](const std::string& option, const std::string& value) {
    std::vector<std::string> more = options;
    more.insert(more.end(), {option, value});
    return more;
  };
  const Output whole = run_program(tiny_training(folder / "whole", options));
  check_success(whole);
  CHECK(whole.out.find("flash, alibi positions, window 4, softcap 5, sinks\n") != std::string::npos);
  const auto config = nlohmann::json::parse(read_file(folder / "whole/config.json"));
  CHECK(config["window"] == 4);
  CHECK(config["softcap"] == 5);
  CHECK(config["sinks"] == true);
  CHECK(config["positions"] == "alibi");

  check_success(run_program(tiny_training(folder / "parts", with("--stop-after", "5"))));
  check_success(run_program({"train", "--resume", folder / "parts", "--quiet"}));
  CHECK(timeless_metrics(folder / "whole") == timeless_metrics(folder / "parts"));
  CHECK(read_file(folder / "whole/state.safetensors") == read_file(folder / "parts/state.safetensors"));

  check_success(run_program(tiny_training(folder / "naive", with("--attention", "naive"))));
  check_success(run_program(tiny_training(folder / "plain")));
  const auto a = losses(folder / "whole"), b = losses(folder / "naive"), plain = losses(folder / "plain");
  for (std::size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i] == doctest::Approx(b[i]).epsilon(1e-4));
    CHECK(a[i] != plain[i]);
  }
}

TEST_CASE("train: a run of an older program, whose config.json lacks newer settings, goes on") {
  const TemporaryFolder folder;
  check_success(run_program(tiny_training(folder / "run", {"--stop-after", "5"})));
  auto config = nlohmann::ordered_json::parse(read_file(folder / "run/config.json"));
  for (const char* key : {"window", "softcap", "sinks"}) config.erase(key);
  write_file(folder / "run/config.json", config.dump());
  check_success(run_program({"train", "--resume", folder / "run", "--quiet"}));
  check_success(run_program({"sample", folder / "run"}));
  CHECK(losses(folder / "run").size() == 12);
}

TEST_CASE("train: a short run solves sort, and prints how it went" * doctest::test_suite("slow")) {
  const TemporaryFolder folder;
  const Output output =
      run_program({"train", "--task", "sort", "--layers", "2", "--steps", "150", "--out", folder / "run"});
  check_success(output);
  const Metrics metrics = read_metrics(folder / "run/metrics.jsonl");
  REQUIRE(metrics.steps.size() == 150);
  CHECK(metrics.evaluations.back().exact > 0.95);
  CHECK(metrics.evaluations.back().val_loss < 0.1);
  CHECK(output.out.find("sort: 150 of 150 steps") != std::string::npos);
  CHECK(output.out.find("step 150/150") != std::string::npos);
}

TEST_CASE("train: learns from any text") {
  const TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 100; ++i) text += "so it goes and goes\n";
  write_file(folder / "text", text);
  check_success(
      run_program({"train", "--text", folder / "text", "--layers", "1", "--width", "16", "--heads", "2",
                   "--context", "16", "--steps", "60", "--lr", "0.01", "--quiet", "--out", folder / "run"}));
  const auto metrics = read_metrics(folder / "run/metrics.jsonl");
  CHECK(metrics.evaluations.back().val_loss < 0.8 * metrics.steps.front().loss);
  const Output sampled = run_program({"sample", folder / "run", "--prompt", "so it", "--tokens", "10"});
  check_success(sampled);
  CHECK(sampled.out.starts_with("so it"));
  CHECK(sampled.out.size() == 5 + 10 + 1);
}

TEST_CASE("trainer: live bytes return to parameters, gradients and optimiser state after backward") {
  const Index before = memory::usage().live;
  Trainer trainer(tiny_config());
  const StepReport report = trainer.step();
  const Index parameters = 4 * nn::count(nn::parameters(trainer.model()));
  CHECK(report.live_bytes - before == 4 * parameters);
  CHECK(memory::usage().live - before == 3 * parameters);
  CHECK(report.peak_bytes > report.live_bytes);
}

TEST_CASE("trainer: the learning rate rises in a line and falls in a cosine") {
  RunConfig c;
  c.lr = 1;
  c.min_lr = 0.1;
  c.warmup = 10;
  c.steps = 110;
  CHECK(learning_rate(c, 0) == doctest::Approx(0.1));
  CHECK(learning_rate(c, 9) == doctest::Approx(1.0));
  CHECK(learning_rate(c, 10) == doctest::Approx(1.0));
  CHECK(learning_rate(c, 60) == doctest::Approx(0.55));
  CHECK(learning_rate(c, 110) == doctest::Approx(0.1));
}

TEST_CASE("trainer: pooled key/value heads start as the means of the heads of MHA") {
  RunConfig config = tiny_config();
  config.model.attention.heads = 2;
  config.model.attention.kv_heads = 2;
  Trainer full(config);
  config.model.attention.kv_heads = 1;
  config.kv_init = KvInit::pooled;
  Trainer pooled(config);
  const Tensor& many = full.model().blocks[1].attention.key.weight.value();
  const Tensor& one = pooled.model().blocks[1].attention.key.weight.value();
  REQUIRE(many.size() == 2 * one.size());
  for (Index i = 0; i < one.size(); ++i) {
    CHECK(one.at(i) == doctest::Approx((many.at(i) + many.at(i + one.size())) / 2).epsilon(1e-6));
  }
}
