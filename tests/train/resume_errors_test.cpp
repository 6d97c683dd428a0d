#include <doctest/doctest.h>

#include "tests/train/run_program.h"
#include "tilegrad/train/run/metrics.h"

using namespace tilegrad;
using namespace tilegrad::train;

TEST_CASE("resume: only what does not change the run may be said") {
  const TemporaryFolder folder;
  REQUIRE(run_program(tiny_training(folder / "run", {"--stop-after", "2"})).code == kSuccess);
  check_error({"train", "--resume", folder / "run", "--lr", "1"}, kFailure, "resume: --lr cannot change");
  check_error({"train", "--resume", folder / "run", "--window", "3"}, kFailure,
              "resume: --window cannot change");
  check_error({"train", "--resume", folder / "nothing"}, kFailure, "no such file");
}

TEST_CASE("resume: a damaged file of the run is reported in one line") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  REQUIRE(run_program(tiny_training(run, {"--stop-after", "2"})).code == kSuccess);
  const auto damaged = [&](const std::string& name, auto&& damage, const std::string& line) {
    const std::string whole = read_file(run + name);
    write_file(run + name, damage(whole));
    check_error({"train", "--resume", run}, kFailure, line);
    write_file(run + name, whole);
  };
  const auto first_half = [](const std::string& s) { return s.substr(0, s.size() / 2); };
  damaged("/config.json", first_half, "config.json: is not a JSON object");
  damaged("/state.safetensors", first_half, "state.safetensors: is truncated");
  damaged(
      "/state.safetensors", [](const std::string& s) { return s + "more"; }, "after the last tensor");
  damaged(
      "/state.safetensors", [](const std::string&) { return ""; }, "state.safetensors: is truncated");
  // The state of another model.
  REQUIRE(run_program(tiny_training(folder / "wide", {"--width", "32", "--stop-after", "2"})).code ==
          kSuccess);
  damaged(
      "/state.safetensors", [&](const std::string&) { return read_file(folder / "wide/state.safetensors"); },
      "is f32 (");
  CHECK(run_program({"train", "--resume", run, "--quiet"}).code == kSuccess);
}

TEST_CASE(
    "resume: damaged and empty lines of metrics.jsonl are dropped with a warning, a missing file is told") {
  const TemporaryFolder folder;
  const std::string metrics = folder / "run/metrics.jsonl";
  REQUIRE(run_program(tiny_training(folder / "run", {"--stop-after", "4"})).code == kSuccess);
  const std::string whole = read_file(metrics);
  write_file(metrics, "nonsense\n\n{\"step\":18446744073709551615}\n" + whole);
  const Output output = run_program({"train", "--resume", folder / "run", "--quiet", "--stop-after", "1"});
  CHECK(output.code == kSuccess);
  CHECK(output.err.find("metrics.jsonl: 3 damaged lines, the first is line 1; dropped") != std::string::npos);
  CHECK(read_file(metrics).starts_with(whole));
  CHECK(read_metrics(metrics).steps.size() == 5);
  std::filesystem::remove(metrics);
  const Output missing = run_program({"train", "--resume", folder / "run", "--quiet"});
  CHECK(missing.code == kSuccess);
  CHECK(missing.err.find("metrics.jsonl: is missing") != std::string::npos);
}

TEST_CASE("resume: fewer steps than were done are an error, and config.json stays as it was") {
  const TemporaryFolder folder;
  REQUIRE(run_program(tiny_training(folder / "run")).code == kSuccess);
  const std::string config = read_file(folder / "run/config.json");
  check_error({"train", "--resume", folder / "run", "--steps", "3", "--log-level", "off"}, kFailure,
              "is at step 12, but the run ends after 3");
  CHECK(read_file(folder / "run/config.json") == config);
}

TEST_CASE("resume: another text than the one learned from is refused") {
  const TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 100; ++i) text += "abcdefgh\n";
  write_file(folder / "text", text);
  REQUIRE(run_program({"train", "--text", folder / "text", "--layers", "1", "--width", "8", "--heads", "1",
                       "--context", "8", "--steps", "4", "--stop-after", "2", "--out", folder / "run"})
              .code == kSuccess);
  text[0] = 'b';
  write_file(folder / "text", text);
  check_error({"train", "--resume", folder / "run"}, kFailure,
              "is not the text that this run was started with");
}
