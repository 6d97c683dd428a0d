#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <set>

#include "tests/train/run_program.h"
#include "tilegrad/nn/safetensors.h"
#include "tilegrad/train/run/learning_rate.h"
#include "tilegrad/train/run/metrics.h"
#include "tilegrad/train/run/run_folder.h"
#include "tilegrad/train/run/stop_rule.h"
#include "tilegrad/train/run/trainer.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

using Options = std::vector<std::string>;

std::vector<EvaluationLine> evaluations(const std::string& run) {
  return read_metrics(run + "/metrics.jsonl").evaluations;
}

const EvaluationLine& best_of(const std::vector<EvaluationLine>& lines) {
  return *std::min_element(lines.begin(), lines.end(),
                           [](const auto& a, const auto& b) { return a.val_loss < b.val_loss; });
}

// The settings below as a whole run, and as one that was stopped twice; what both leave must be the same.
void check_resumes_exactly(const Options& more) {
  CAPTURE(more[0]);
  const TemporaryFolder folder;
  Options with_stop = more;
  with_stop.insert(with_stop.end(), {"--stop-after", "4"});
  check_success(run_program(tiny_training(folder / "whole", more)));
  check_success(run_program(tiny_training(folder / "parts", with_stop)));
  check_success(run_program({"train", "--resume", folder / "parts", "--quiet", "--stop-after", "3"}));
  check_success(run_program({"train", "--resume", folder / "parts", "--quiet"}));
  CHECK(timeless_metrics(folder / "whole") == timeless_metrics(folder / "parts"));
  for (const char* file : {"/state.safetensors", "/model.safetensors", "/best.safetensors"}) {
    const bool is_there = std::filesystem::exists((folder / "whole") + file);
    CHECK(std::filesystem::exists((folder / "parts") + file) == is_there);
    if (is_there) CHECK(read_file((folder / "whole") + file) == read_file((folder / "parts") + file));
  }
}

// A text whose second half differs from its first, so that learning the first makes the second harder.
std::string write_text(const std::string& file, const std::string& first, const std::string& second) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += first;
  for (int i = 0; i < 10; ++i) text += second;
  write_file(file, text);
  return file;
}

}  // namespace

TEST_CASE("train: stopped runs go on bit for bit, whatever the schedule, accumulation and rules to stop" *
          doctest::test_suite("slow")) {
  check_resumes_exactly({"--schedule", "linear"});
  check_resumes_exactly({"--schedule", "wsd", "--decay", "5"});
  check_resumes_exactly({"--accumulate", "2"});
  check_resumes_exactly({"--best", "--eval-every", "2"});
  check_resumes_exactly({"--patience", "1", "--lr", "10", "--eval-every", "2", "--clip", "0"});
}

TEST_CASE("train: stopped runs go on bit for bit, whatever the optimizer" * doctest::test_suite("slow")) {
  check_resumes_exactly({"--optimizer", "adam"});
  check_resumes_exactly({"--optimizer", "sgd"});
  check_resumes_exactly({"--optimizer", "sgd", "--nesterov"});
  check_resumes_exactly({"--optimizer", "sgd", "--momentum", "0"});
}

TEST_CASE("train: --optimizer decides what is kept with the weights, and stays when the run is resumed") {
  const TemporaryFolder folder;
  const auto state_of = [&](const std::string& name, const Options& more) {
    check_success(run_program(tiny_training(folder / name, more)));
    std::set<std::string> endings;
    for (const auto& [tensor, value] : nn::load_safetensors(folder / name + "/state.safetensors").tensors) {
      if (!tensor.starts_with("weights.")) endings.insert(tensor.substr(tensor.rfind('.')));
    }
    return endings;
  };
  CHECK(state_of("adamw", {}) == std::set<std::string>{".m", ".v"});
  CHECK(state_of("sgd", {"--optimizer", "sgd"}) == std::set<std::string>{".velocity"});
  CHECK(state_of("plain", {"--optimizer", "sgd", "--momentum", "0"}).empty());
  CHECK(RunFolder(folder / "sgd").read_config().optimizer.kind == OptimizerKind::sgd);
  check_error({"train", "--resume", folder / "sgd", "--optimizer", "adamw", "--log-level", "off"}, kFailure,
              "resume: --optimizer cannot change");
}

TEST_CASE("learning rate: every schedule warms up, and descends as its name says") {
  RunConfig c;
  c.lr = 1;
  c.min_lr = 0.2;
  c.warmup = 10;
  c.steps = 110;
  const auto at = [&](LrSchedule schedule, Index step) {
    c.schedule = schedule;
    return doctest::Approx(learning_rate(c, step));
  };
  for (const LrSchedule schedule :
       {LrSchedule::cosine, LrSchedule::linear, LrSchedule::constant, LrSchedule::wsd}) {
    CHECK(0.1 == at(schedule, 0));
    CHECK(1.0 == at(schedule, 9));
    CHECK(1.0 == at(schedule, 10));
  }
  CHECK(0.6 == at(LrSchedule::cosine, 60));
  CHECK(0.8 == at(LrSchedule::linear, 35));
  CHECK(0.2 == at(LrSchedule::linear, 110));
  CHECK(1.0 == at(LrSchedule::constant, 109));
  CHECK(1.0 == at(LrSchedule::wsd, 88));
  CHECK(0.6 == at(LrSchedule::wsd, 99));
  CHECK(0.2 == at(LrSchedule::wsd, 110));
  c.decay = 4;
  CHECK(1.0 == at(LrSchedule::wsd, 106));
  CHECK(0.6 == at(LrSchedule::wsd, 108));
}

TEST_CASE("trainer: accumulated batches give the gradient of one batch of their size") {
  RunConfig whole = tiny_config(), parts = tiny_config();
  whole.model.dtype = parts.model.dtype = Dtype::f64;
  whole.batch = 12;
  parts.batch = 4;
  parts.accumulate = 3;
  Trainer a(whole), b(parts);
  for (int step = 0; step < 3; ++step) {
    const StepReport x = a.step(), y = b.step();
    CHECK(x.loss == doctest::Approx(y.loss).epsilon(1e-12));
    CHECK(x.grad_norm == doctest::Approx(y.grad_norm).epsilon(1e-12));
    CHECK(x.peak_bytes > y.peak_bytes);
  }
}

TEST_CASE("train: --best keeps the weights of the lowest validation loss, for sample and evaluate" *
          doctest::test_suite("slow")) {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  // A learning rate at which the loss soon rises again.
  check_success(
      run_program(tiny_training(run, {"--best", "--eval-every", "1", "--lr", "0.5", "--clip", "0"})));
  const auto lines = evaluations(run);
  REQUIRE(best_of(lines).step < lines.back().step);
  const auto loss_of = [&](const Options& more) {
    Options arguments = {"evaluate", run, "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Output output = run_program(arguments);
    check_success(output);
    return nlohmann::json::parse(output.out)["val_loss"].get<double>();
  };
  CHECK(loss_of({}) == lines.back().val_loss);
  CHECK(loss_of({"--best"}) == best_of(lines).val_loss);
  check_success(run_program({"sample", run, "--best"}));
  const Output file = run_program({"evaluate", run + "/best.safetensors"});
  check_success(file);
  CHECK(file.out.find("% of the answers") != std::string::npos);

  check_success(run_program(tiny_training(folder / "without")));
  check_error({"sample", folder / "without", "--best"}, kFailure,
              "best.safetensors: is missing; train --best keeps it");
}

TEST_CASE("evaluate: a text has bits per byte, and another one is taken as a whole") {
  const TemporaryFolder folder;
  const std::string text = write_text(folder / "text", "so it goes\n", "it goes so\n");
  const std::string run = folder / "run";
  check_success(run_program({"train", "--text", text, "--layers", "1", "--width", "16", "--heads", "2",
                             "--context", "8", "--steps", "5", "--quiet", "--out", run}));
  const Output own = run_program({"evaluate", run});
  check_success(own);
  CHECK(own.out.find("bits per byte)") != std::string::npos);
  CHECK(own.out.find("% of the bytes\n") != std::string::npos);
  CHECK(own.out.find("sequences") == std::string::npos);

  write_file(folder / "other", "goes it so\ngoes");
  const Output other = run_program({"evaluate", run, "--text", folder / "other", "--json"});
  check_success(other);
  const auto json = nlohmann::json::parse(other.out);
  CHECK(json["bits_per_byte"].get<double>() == doctest::Approx(json["val_loss"].get<double>() / std::log(2)));

  write_file(folder / "foreign", "these are other bytes");
  check_error({"evaluate", run, "--text", folder / "foreign"}, kFailure, "foreign: text: the byte");
  write_file(folder / "short", "so it");
  check_error({"evaluate", run, "--text", folder / "short"}, kFailure, "short: 5 bytes are too few");
}

TEST_CASE("train: --from starts with the weights of a run and its model, and with new settings") {
  const TemporaryFolder folder;
  const std::string first = folder / "first", second = folder / "second";
  check_success(run_program(tiny_training(first, {"--norm", "rmsnorm"})));
  check_success(
      run_program({"train", "--from", first, "--lr", "1e-12", "--steps", "2", "--quiet", "--out", second}));
  const auto config = nlohmann::json::parse(read_file(second + "/config.json"));
  CHECK(config["norm"] == "rmsnorm");
  CHECK(config["width"] == 16);
  CHECK(config["lr"] == 1e-12);
  CHECK(config["from"] == first);
  // A learning rate at which nothing is learned leaves the weights, and so the loss, as they were.
  CHECK(evaluations(second).back().val_loss ==
        doctest::Approx(evaluations(first).back().val_loss).epsilon(1e-5));

  SUBCASE("the command that is written down makes the same run") {
    const auto environment = nlohmann::json::parse(read_file(second + "/environment.json"));
    const auto command = environment["command"].get<std::string>();
    CHECK(command.find("--from " + first) != std::string::npos);
    CHECK(command.find("--norm rmsnorm") != std::string::npos);
  }
  SUBCASE("another model is refused, and the folder stays as it was") {
    check_error({"train", "--from", first, "--width", "32", "--quiet", "--out", folder / "third",
                 "--log-level", "off"},
                kFailure, "model.safetensors: ");
    CHECK_FALSE(std::filesystem::exists(folder / "third"));
  }
}

TEST_CASE("train: a finished run goes on with more steps") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  check_success(run_program(tiny_training(run)));
  check_success(run_program({"train", "--resume", run, "--steps", "20", "--quiet"}));
  const Metrics metrics = read_metrics(run + "/metrics.jsonl");
  CHECK(metrics.steps.size() == 20);
  CHECK(metrics.evaluations.back().step == 20);
}

TEST_CASE(
    "train: --stop-when and --patience end a run at an evaluation, and resuming it does not undo that") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  const Output output = run_program(tiny_training(run, {"--eval-every", "2", "--stop-when", "val_loss=100"}));
  check_success(output);
  CHECK(output.out.find("2 of 12 steps, stopped: val_loss=100 is reached") != std::string::npos);
  check_success(run_program({"train", "--resume", run, "--quiet"}));
  CHECK(read_metrics(run + "/metrics.jsonl").steps.size() == 2);
  check_success(run_program({"train", "--resume", run, "--quiet", "--stop-when", "val_loss=0.001"}));
  CHECK(read_metrics(run + "/metrics.jsonl").steps.size() == 12);

  const std::string patient = folder / "patient";
  check_success(run_program(
      tiny_training(patient, {"--eval-every", "1", "--patience", "2", "--lr", "3", "--clip", "0"})));
  const auto lines = evaluations(patient);
  REQUIRE(lines.size() < 12);
  CHECK(lines.back().step == best_of(lines).step + 2);
}

TEST_CASE("stop rule: only figures of an evaluation, with values that they can have") {
  CHECK(parse_stop_rule("accuracy=0.99").holds({.accuracy = 0.99}));
  CHECK_FALSE(parse_stop_rule("exact=1").holds({.accuracy = 1, .exact = 0.999}));
  CHECK(parse_stop_rule("val_loss=0.5").holds({.loss = 0.4}));
  CHECK_FALSE(parse_stop_rule("val_loss=0.5").holds({.loss = std::nan("")}));
  for (const char* text :
       {"", "accuracy", "accuracy=", "accuracy=1.5", "accuracy=1x", "loss=1", "val_loss=inf"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(parse_stop_rule(text), Error);
  }
  check_error({"train", "--stop-when", "accuracy=2", "--log-level", "off"}, kFailure,
              "stop-when: `accuracy=2` is not");
  check_error({"train", "--decay", "3", "--log-level", "off"}, kFailure,
              "decay: has no effect with --schedule cosine");
  check_error({"train", "--optimizer", "sgd", "--momentum", "0", "--nesterov", "--log-level", "off"},
              kFailure, "nesterov: has no effect without momentum");
  check_error({"train", "--optimizer", "sgd", "--momentum", "1", "--log-level", "off"}, kFailure,
              "momentum: is 1, not in [0, 1)");
}
