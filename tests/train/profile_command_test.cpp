#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <thread>

#include "tests/train/profile_helpers.h"
#include "tests/train/run_program.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/train/app/compare_runs.h"
#include "tilegrad/train/labs/child.h"
#include "tilegrad/train/labs/lab_profile.h"
#include "tilegrad/train/measure/memory_timeline.h"
#include "tilegrad/train/run/metrics.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

// Times three calls.
CallTimer timer_of(const std::string& profile) { return CallTimer({.repeats = 3, .profile = profile}); }

}  // namespace

TEST_CASE(
    "train --profile: changes no bit of losses and weights, and hides nothing of the memory's timeline") {
  const TemporaryFolder folder;
  REQUIRE(run_program(tiny_training(folder / "plain")).code == kSuccess);
  const Output output = run_program(tiny_training(folder / "profiled", {"--profile"}));
  REQUIRE(output.code == kSuccess);
  CHECK(timeless_metrics(folder / "plain") == timeless_metrics(folder / "profiled"));
  CHECK(read_file(folder / "plain/model.safetensors") == read_file(folder / "profiled/model.safetensors"));
  const auto stairs = [](const std::string& file) {
    std::vector<std::pair<Index, Index>> bytes;
    std::vector<std::string> warnings;
    for (const MemoryEvent& event : read_memory_timeline(file, warnings))
      bytes.emplace_back(event.op, event.live_bytes);
    return bytes;
  };
  const auto plain = stairs(folder / "plain/memory.jsonl");
  CHECK(plain == stairs(folder / "profiled/memory.jsonl"));
  CHECK(std::is_sorted(plain.begin(), plain.end(), [](auto& a, auto& b) { return a.first < b.first; }));
  CHECK(plain.front().first == 0);
  CHECK(plain.back().first > 20);

  CHECK_FALSE(std::filesystem::exists(folder / "plain/profile.json"));
  CHECK_FALSE(std::filesystem::exists(folder / "plain/ops.json"));
  const Profile profile = read_intact(folder / "profiled/ops.json");
  CHECK(profile.of == "steps 2 to 4");
  CHECK(profile.calls == 3);
  CHECK(nlohmann::json::accept(read_file(folder / "profiled/profile.json")));
  CHECK(output.out.find("Ops of sort: mean of steps 2 to 4") != std::string::npos);
  CHECK(output.out.find("attention (flash)") != std::string::npos);
}

TEST_CASE("train --profile: two runs agree in all but times, and a plain run forgets an earlier profile") {
  const TemporaryFolder folder;
  const std::string a = folder / "a", b = folder / "b";
  REQUIRE(run_program(tiny_training(a, {"--profile"})).code == kSuccess);
  REQUIRE(run_program(tiny_training(b, {"--profile"})).code == kSuccess);
  CHECK(timeless(read_intact(a + "/ops.json")) == timeless(read_intact(b + "/ops.json")));
  REQUIRE(run_program(tiny_training(a, {"--overwrite"})).code == kSuccess);
  CHECK_FALSE(std::filesystem::exists(a + "/ops.json"));
  CHECK_FALSE(std::filesystem::exists(a + "/profile.json"));
}

TEST_CASE("train --profile: a short run is profiled as far as it goes, a resumed one anew") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  REQUIRE(run_program(tiny_training(run, {"--profile", "--stop-after", "1"})).code == kSuccess);
  CHECK(read_intact(run + "/ops.json").of == "step 1");
  REQUIRE(run_program(tiny_training(run, {"--profile", "--stop-after", "3", "--overwrite"})).code ==
          kSuccess);
  CHECK(read_intact(run + "/ops.json").of == "steps 2 to 3");
  const Output output = run_program({"train", "--resume", run, "--quiet", "--json", "--profile"});
  REQUIRE(output.code == kSuccess);
  CHECK(read_intact(run + "/ops.json").of == "steps 5 to 7");
  CHECK(nlohmann::json::parse(output.out).at("profile").at("calls") == 3);
}

TEST_CASE("train --profile: after Ctrl-C there is what there was, and it is said") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  std::thread user([&] {
    while (!std::filesystem::exists(run + "/ops.json")) std::this_thread::yield();
    kill(getpid(), SIGINT);
  });
  // Evaluations between the steps leave the user time.
  const Output output = run_program(
      tiny_training(run, {"--steps", "1000000", "--eval-every", "1", "--width", "64", "--profile"}));
  user.join();
  CHECK(output.code == kInterrupted);
  const auto done = static_cast<Index>(read_metrics(run + "/metrics.jsonl").steps.size());
  const Profile profile = read_intact(run + "/ops.json");
  CHECK(profile.calls == std::clamp<Index>(done - 1, 1, 3));
  CHECK(profile.interrupted == (done < 4));
  CHECK((output.out.find(", then came the interrupt, in ") != std::string::npos) == (done < 4));
  CHECK(output.out.find("Ops of sort: mean of " + profile.of) != std::string::npos);
  CHECK(nlohmann::json::accept(read_file(run + "/profile.json")));
}

TEST_CASE(
    "compare --profile: each variant has a table of its own, printed, in the report and in compare.json") {
  const TemporaryFolder folder;
  RunConfig config = tiny_config();
  config.steps = 5;
  config.warmup = 0;
  config.eval_every = 5;
  config.out = folder / "cmp";
  std::ostringstream out, err;
  const int code = run_comparison(config,
                                  {.variants = {"mha-naive", "mha-flash-ckpt"},
                                   .quiet = true,
                                   .profile = true,
                                   .program = program_file()},
                                  {.out = out, .err = err});
  REQUIRE(code == kSuccess);
  const nlohmann::json rows = nlohmann::json::parse(read_file(folder / "cmp/compare.json"));
  const std::string page = read_file(folder / "cmp/report.html");
  for (const nlohmann::json& row : rows) {
    const auto title = "Ops of " + row.at("variant").get<std::string>() + ": mean of steps 2 to 4";
    CHECK(row.at("profile").at("calls") == 3);
    CHECK(out.str().find(title) != std::string::npos);
    CHECK(page.find(title) != std::string::npos);
  }
  CHECK(rows.size() == 2);
  CHECK(out.str().find("attention (naive)") != std::string::npos);
  CHECK(nlohmann::json::accept(read_file(folder / "cmp/mha-naive/profile.json")));
}

TEST_CASE("lab --profile: every timed call is profiled, and those before an interruption remain") {
  const TemporaryFolder folder;
  const Var x = random_leaf({8}, 1);
  CHECK(timer_of(folder / "a").time("step", [&] { gelu(x); }).size() == 3);
  const Profile all = read_intact(folder / "a-step.ops.json");
  CHECK(all.of == "calls 1 to 3");
  CHECK(cost_of(all, "gelu").calls() == 3);
  CHECK(nlohmann::json::accept(read_file(folder / "a-step.json")));

  int call = 0;
  const auto stops = [&] {
    gelu(x);
    if (++call == 3) fail("stop");
  };
  CHECK_THROWS_AS(timer_of(folder / "b").time("step", stops), Error);
  CHECK(read_intact(folder / "b-step.ops.json").of == "calls 1 to 2");
  CHECK(ListenScope::listening() == nullptr);

  timer_of("").time("step", [&] { gelu(x); });
  CHECK(folder.entries() == 4);
}

TEST_CASE("lab --profile: tables stand in a folder next to the results, which the next lab empties") {
  const TemporaryFolder folder;
  const LabOptions options = {.out = folder / "lab", .profile = true};
  CHECK(profile_tables(options).empty());
  CHECK(profile_stem(options, "").empty());
  const Var x = random_leaf({8}, 1);
  CallTimer({.repeats = 2, .profile = profile_stem(options, "flash-64")}).time("forward", [&] { gelu(x); });
  const auto tables = profile_tables(options);
  REQUIRE(tables.size() == 1);
  CHECK(tables[0].title.starts_with("Ops of flash-64-forward: mean of calls 1 to 2"));
  clear_profiles(options);
  CHECK(profile_tables(options).empty());
}
