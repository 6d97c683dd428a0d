#include "tilegrad/train/app/progress.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/train/run_program.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

const StepReport kHalf = {.step = 50, .loss = 1.5, .ms = 100, .tokens_per_s = 12345, .peak_bytes = 3 << 20};
const StepReport kEnd = {.step = 100, .loss = 0.5, .ms = 100, .tokens_per_s = 12345, .peak_bytes = 3 << 20};
const Evaluation kEvaluation = {.loss = 0.25, .accuracy = 0.875, .exact = 0.5};

// What is shown when a run is evaluated half way, and at its end if that is asked for.
std::string shown(ProgressOptions options, bool terminal, std::size_t columns = 120,
                  bool to_the_end = false) {
  options.steps = 100;
  std::ostringstream out, err;
  const Console console = {.out = out, .err = err, .terminal = terminal, .columns = columns};
  {
    Progress progress(console, options);
    progress.step(kHalf);
    progress.evaluation(kEvaluation);
    if (to_the_end) {
      progress.step(kEnd);
      progress.evaluation(kEvaluation);
    }
  }
  CHECK(err.str().empty());
  return out.str();
}

}  // namespace

TEST_CASE("progress: on a terminal one line with a bar is written over") {
  CHECK(shown({.label = "gqa"}, true) ==
        "\rgqa  [============            ] step 50/100  loss 1.5000  val 0.2500  acc 87.5 %  12.3k tok/s  "
        "3.0 MiB"
        "  5 s left\n");
  const std::string both = shown({}, true, 120, true);
  CHECK(std::count(both.begin(), both.end(), '\n') == 1);
  CHECK(both.find("\r[========================] step 100/100") != std::string::npos);
  CHECK(both.find("done in 0 s") != std::string::npos);
}

TEST_CASE("progress: a line is never wider than the terminal") {
  const std::string whole = shown({}, true, 200);
  CHECK(whole.find("left\n") != std::string::npos);
  for (std::size_t columns = 2; columns < 120; ++columns) {
    const std::string line = shown({.label = "mha-flash"}, true, columns);
    CAPTURE(columns);
    CHECK(line.size() <= columns - 1 + 2);  // and \r and \n
  }
}

TEST_CASE("progress: a narrow terminal gets a bar rather than the evaluation") {
  CHECK(shown({}, true, 70) == "\r[=====     ] step 50/100  loss 1.5000  12.3k tok/s  3.0 MiB  5 s left\n");
}

TEST_CASE("progress: elsewhere lines are whole, and the last one is always shown") {
  std::istringstream lines(shown({.label = "mqa"}, false, 20, true));
  std::string last;
  for (std::string line; std::getline(lines, line); last = line) CHECK(line.starts_with("mqa  step "));
  CHECK(
      last.starts_with("mqa  step 100/100  loss 0.5000  val 0.2500  acc 87.5 %  12.3k tok/s  3.0 MiB  done"));
}

TEST_CASE("progress: JSON is one object per line, also on a terminal") {
  std::istringstream lines(shown({.label = "mqa", .json = true}, true, 20, true));
  nlohmann::json last;
  for (std::string line; std::getline(lines, line);) last = nlohmann::json::parse(line);
  CHECK(last["run"] == "mqa");
  CHECK(last["step"] == 100);
  CHECK(last["steps"] == 100);
  CHECK(last["loss"] == 0.5);
  CHECK(last["val_loss"] == 0.25);
  CHECK(last["accuracy"] == 0.875);
  CHECK(last["peak_bytes"] == 3 << 20);
  CHECK(last["seconds_left"] == 0);
}

TEST_CASE("progress: quiet shows nothing") {
  CHECK(shown({.quiet = true}, true, 120, true).empty());
  CHECK(shown({.quiet = true}, false, 120, true).empty());
}

TEST_CASE("progress: with --json a run tells its steps and its summary as JSON") {
  const TemporaryFolder folder;
  auto arguments = tiny_training(folder / "run", {"--json"});
  std::erase(arguments, "--quiet");
  std::istringstream lines(run_program(arguments).out);
  std::vector<nlohmann::json> objects;
  for (std::string line; std::getline(lines, line);) objects.push_back(nlohmann::json::parse(line));
  REQUIRE(objects.size() >= 2);
  const auto& step = objects[objects.size() - 2];
  const auto& summary = objects.back();
  CHECK(step["step"] == 12);
  CHECK(summary["out"] == folder / "run");
  CHECK(summary["step"] == 12);
  CHECK(summary["interrupted"] == false);
  CHECK(summary["val_loss"] == step["val_loss"]);
}
