#include "tilegrad/base/interrupt.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>

#include "tests/train/run_program.h"
#include "tilegrad/base/memory.h"
#include "tilegrad/base/process.h"
#include "tilegrad/train/run/metrics.h"
#include "tilegrad/train/run/run_folder.h"
#include "tilegrad/train/run/trainer.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

std::size_t lines(const std::string& file) {
  const std::string content = std::filesystem::exists(file) ? read_file(file) : "";
  return static_cast<std::size_t>(std::count(content.begin(), content.end(), '\n'));
}

void nothing(int) {}

}  // namespace

TEST_CASE("interrupt: Ctrl-C stops after the step, saves, prints the summary, and the run can be resumed") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  std::thread user([&] {
    while (lines(run + "/metrics.jsonl") < 3) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    kill(getpid(), SIGINT);
  });
  const Output output = run_program(tiny_training(run, {"--steps", "1000000"}));
  user.join();
  CHECK(output.code == kInterrupted);
  CHECK(output.out.find("interrupted") != std::string::npos);
  const std::size_t done = read_metrics(run + "/metrics.jsonl").steps.size();
  CHECK(done >= 2);
  CHECK(done < 1000000);

  REQUIRE(run_program({"train", "--resume", run, "--stop-after", "5", "--quiet"}).code == kSuccess);
  const std::string whole = folder / "whole";
  REQUIRE(run_program(tiny_training(whole, {"--steps", "1000000", "--stop-after", std::to_string(done + 5)}))
              .code == kSuccess);
  CHECK(timeless_metrics(run) == timeless_metrics(whole));
  CHECK(read_file(run + "/state.safetensors") == read_file(whole + "/state.safetensors"));
}

TEST_CASE("interrupt: a long step ends at its next op, as if it had not begun" *
          doctest::test_suite("slow")) {
  const TemporaryFolder folder;
  const std::string run = folder / "run", whole = folder / "whole";
  const auto training = [](const std::string& out, std::vector<std::string> more) {
    more.insert(more.end(), {"--steps", "3", "--batch", "2048", "--dropout", "0.1"});
    return tiny_training(out, more);
  };
  REQUIRE(run_program(training(run, {"--stop-after", "2"})).code == kSuccess);
  const Index before = memory::usage().live;
  std::thread user([&] {  // strikes when the step has got somewhere
    while (memory::usage().live < before + (16 << 20)) std::this_thread::yield();
    kill(getpid(), SIGINT);
  });
  const Output output = run_program({"train", "--resume", run, "--quiet"});
  user.join();
  CHECK(output.code == kInterrupted);
  CHECK(read_metrics(run + "/metrics.jsonl").steps.size() == 2);

  REQUIRE(run_program({"train", "--resume", run, "--quiet"}).code == kSuccess);
  REQUIRE(run_program(training(whole, {})).code == kSuccess);
  CHECK(timeless_metrics(run) == timeless_metrics(whole));
  CHECK(read_file(run + "/state.safetensors") == read_file(whole + "/state.safetensors"));
}

TEST_CASE("interrupt: a request that arrives twice is one request, and the scope restores what was before") {
  const auto before = std::signal(SIGTERM, nothing);
  {
    const InterruptScope scope;
    CHECK_FALSE(InterruptScope::requested());
    kill(getpid(), SIGTERM);
    kill(getpid(), SIGTERM);
    CHECK(InterruptScope::requested());
  }
  const bool restored = std::signal(SIGTERM, before) == nothing;
  CHECK(restored);
}

TEST_CASE("interrupt: the loss of the terminal or of the reader asks to stop, as often as it is signalled") {
  for (const int signal : {SIGHUP, SIGPIPE}) {
    CAPTURE(signal);
    const InterruptScope scope;
    for (int i = 0; i < 3; ++i) kill(getpid(), signal);
    CHECK(InterruptScope::requested());
  }
}

TEST_CASE("interrupt: a signal that was ignored, as in a background job, stays ignored") {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
    CAPTURE(signal);
    const auto before = std::signal(signal, SIG_IGN);
    {
      const InterruptScope scope;
      kill(getpid(), signal);
      CHECK_FALSE(InterruptScope::requested());
    }
    std::signal(signal, before);
  }
}

TEST_CASE("interrupt: an evaluation ends early, and takes place when the run is resumed") {
  RunConfig config = tiny_config();
  const Trainer trainer(config);
  int asked = 0;
  trainer.evaluate(0, [&] { return ++asked == 2; });
  CHECK(asked == 2);

  const TemporaryFolder folder;
  const std::string run = folder / "run", whole = folder / "whole";
  REQUIRE(run_program(tiny_training(whole)).code == kSuccess);
  // As after an interrupt in the evaluation of the last step: all steps are saved, and the evaluation is
  // missing.
  config = config_from_json(read_file(whole + "/config.json"), "whole");
  config.out = run;
  Trainer steps(config);
  const RunFolder files(run);
  make_folder(run);
  files.start(config);
  for (Index i = 0; i < config.steps; ++i) {
    steps.step();
    if (steps.state().step == 5 || steps.state().step == 10) steps.record(steps.evaluate(512));
  }
  files.save(steps);
  REQUIRE(run_program({"train", "--resume", run, "--quiet"}).code == kSuccess);
  CHECK(timeless_metrics(run).back() == timeless_metrics(whole).back());
  CHECK(read_file(run + "/state.safetensors") == read_file(whole + "/state.safetensors"));
}

TEST_CASE("interrupt: a child that ignores Ctrl-C, as jobs in the background do, hears of it all the same") {
  auto* const before = std::signal(SIGINT, SIG_IGN);
  {
    const InterruptScope scope;
    kill(getpid(), SIGTERM);
    const ChildResult child = run_child("/bin/sleep", {"20"});
    CHECK(child.exit_code == 128 + SIGTERM);
    CHECK(child.ended_by_interrupt);
  }
  const InterruptScope without_interrupt;
  CHECK_FALSE(run_child("/bin/sh", {"-c", "kill -s TERM $$"}).ended_by_interrupt);
  std::signal(SIGINT, before);
}
