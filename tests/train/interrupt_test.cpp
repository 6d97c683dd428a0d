#include "tilegrad/base/interrupt.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>

#include "tests/train/run_program.h"
#include "tilegrad/train/run/metrics.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

std::size_t lines(const std::string& file) {
  const std::string content = std::filesystem::exists(file) ? read_file(file) : "";
  return static_cast<std::size_t>(std::count(content.begin(), content.end(), '\n'));
}

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

TEST_CASE("interrupt: a request that arrives twice is one request, and the scope restores what was before") {
  const auto before = std::signal(SIGTERM, SIG_IGN);
  {
    const InterruptScope scope;
    CHECK_FALSE(InterruptScope::requested());
    kill(getpid(), SIGTERM);
    kill(getpid(), SIGTERM);
    CHECK(InterruptScope::requested());
  }
  const bool restored = std::signal(SIGTERM, before) == SIG_IGN;
  CHECK(restored);
}
