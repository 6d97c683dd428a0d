#include <doctest/doctest.h>

#include <sstream>

#include "tests/train/run_program.h"
#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/train/app/check_report.h"
#include "tilegrad/train/app/compare_runs.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

RunConfig comparison_config(const std::string& out) {
  RunConfig config = tiny_config();
  config.model.attention.heads = 4;
  config.model.attention.kv_heads = 4;
  config.model.width = 16;
  config.steps = 6;
  config.warmup = 1;
  config.eval_every = 3;
  config.kv_init = KvInit::pooled;
  config.out = out;
  return config;
}

Index kv_heads(const std::string& name, ComparisonOptions options = {}) {
  options.variants = {name};
  options.keep_all = true;
  return make_variants(comparison_config("x"), options)[0].config.model.attention.kv_heads;
}

}  // namespace

TEST_CASE("check: every gradient agrees with finite differences" * doctest::test_suite("slow")) {
  std::ostringstream out;
  const auto cases = check_cases();
  const Index failures = run_checks(cases, out);
  CAPTURE(out.str());
  CHECK(failures == 0);
  CHECK(cases.size() > 100);
}

TEST_CASE("check: a wrong gradient and an op that throws are failures") {
  const std::vector<GradcheckCase> cases = {
      {"half", {{3}}, [](auto in) { return add(in[0], in[0].detach()); }},
      {"throws", {{3}}, [](auto in) { return reshape(in[0], {2}); }},
      {"right", {{3}}, [](auto in) { return scale(in[0], 2); }}};
  std::ostringstream out;
  CHECK(run_checks(cases, out) == 2);
  CHECK(out.str().find("FAILED: input 0 at") != std::string::npos);
  CHECK(out.str().find("FAILED: reshape: (3) has 3 elements, (2) has 2") != std::string::npos);
}

TEST_CASE("compare: the names of variants") {
  const auto variants = make_variants(comparison_config("x"), {});
  REQUIRE(variants.size() == 5);
  CHECK(variants[0].config.model.attention.kernel == AttentionKernel::naive);
  CHECK(variants[1].config.model.attention.kernel == AttentionKernel::flash);
  CHECK(to_string(variants[1].config.checkpoint) == "none");
  CHECK(to_string(variants[2].config.checkpoint) == "block");
  CHECK(variants[2].config.out == "x/mha-flash-ckpt");
  CHECK(kv_heads("mha") == 4);
  CHECK(kv_heads("gqa") == 2);
  CHECK(kv_heads("mqa-naive-ckpt") == 1);
  CHECK(kv_heads("gqa", {.gqa_heads = 1}) == 1);
  for (const char* wrong : {"", "mla", "mha-", "mha-flash-naive", "mha-ckpt-flash", "mha-flash-ckpt-more"}) {
    CAPTURE(wrong);
    CHECK_THROWS_AS(kv_heads(wrong), Error);
  }
}

TEST_CASE("compare: gqa is left out where no number of heads lies between, unless it was asked for") {
  RunConfig config = comparison_config("x");
  config.model.attention.heads = 3;
  CHECK(make_variants(config, {}).size() == 4);
  CHECK_THROWS_AS(make_variants(config, {.keep_all = true}), Error);
}

// Until a child has set its handlers, the interrupt that is passed on to it simply ends it.
TEST_CASE("compare: an interrupt that meets a run before it has begun is an interrupt, and no failed run") {
  const TemporaryFolder folder;
  write_file(folder / "program", "#!/bin/sh\nkill -s INT $PPID\nexec sleep 60\n");
  std::filesystem::permissions(folder / "program", std::filesystem::perms::owner_all);
  std::ostringstream out, err;
  const int code =
      run_comparison(comparison_config(folder / "cmp"),
                     {.quiet = true, .jobs = 2, .program = folder / "program"}, {.out = out, .err = err});
  CHECK(code == kInterrupted);
  CHECK(nlohmann::json::parse(read_file(folder / "cmp/compare.json")).empty());
}

TEST_CASE("compare: trains each variant in a process of its own and writes table, curves and JSON" *
          doctest::test_suite("slow")) {
  REQUIRE(std::filesystem::exists(program_file()));
  const TemporaryFolder folder;
  std::ostringstream out, err;
  const int code = run_comparison(comparison_config(folder / "cmp"),
                                  {.quiet = true, .program = program_file()}, {.out = out, .err = err});
  CHECK(code == kSuccess);
  const auto rows = nlohmann::json::parse(read_file(folder / "cmp/compare.json"));
  REQUIRE(rows.size() == 5);
  for (const auto& row : rows) {
    CAPTURE(row["variant"]);
    CHECK(out.str().find(row["variant"].get<std::string>()) != std::string::npos);
    CHECK(row["steps"] == 6);
    CHECK(row["peak_rss"] > row["peak_bytes"]);
  }
  CHECK(rows[1]["largest_difference"] < 1e-4);
  CHECK(rows[2]["largest_difference"] == rows[1]["largest_difference"]);
  CHECK(rows[3]["largest_difference"] > 1e-4);
  CHECK(rows[3]["kv_bytes_per_token"] == rows[0]["kv_bytes_per_token"].get<Index>() / 2);
  CHECK(rows[4]["parameters"] < rows[3]["parameters"]);
  std::istringstream curves(read_file(folder / "cmp/curves.csv"));
  std::string line;
  std::getline(curves, line);
  CHECK(line.starts_with("step,mha-naive,mha-flash,mha-flash-ckpt,gqa,mqa,mha-naive val_loss"));
  int lines = 0;
  while (std::getline(curves, line)) ++lines;
  CHECK(lines == 6);
}

TEST_CASE("sample: continues every line of a file") {
  const TemporaryFolder folder;
  REQUIRE(run_program(tiny_training(folder / "run")).code == kSuccess);
  write_file(folder / "prompts", "2 1 0 1 2 0\n\n0 0 0 1 1 1\n");
  const Output all = run_program({"sample", folder / "run", "--prompts", folder / "prompts"});
  CAPTURE(all.err);
  CHECK(all.code == kSuccess);
  const Output first = run_program({"sample", folder / "run", "--prompt", "2 1 0 1 2 0"});
  const Output second = run_program({"sample", folder / "run", "--prompt", "0 0 0 1 1 1"});
  CHECK(all.out == first.out + second.out);
  write_file(folder / "prompts", "\n");
  check_error({"sample", folder / "run", "--prompts", folder / "prompts"}, kFailure,
              "prompts: holds no prompt");
}

TEST_CASE("sample: answers a task, greedily and by chance, the same for the same seed") {
  const TemporaryFolder folder;
  REQUIRE(run_program(tiny_training(folder / "run")).code == kSuccess);
  const auto sample = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"sample", folder / "run", "--prompt", "2 1 0 1 2 0"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Output output = run_program(arguments);
    CAPTURE(output.err);
    CHECK(output.code == kSuccess);
    return output.out;
  };
  const std::string greedy = sample({});
  CHECK(greedy.starts_with("2 1 0 1 2 0 -> "));
  CHECK(std::count(greedy.begin(), greedy.end(), ' ') == 6 + 1 + 6);
  CHECK(sample({}) == greedy);
  CHECK(sample({"--temperature", "2", "--top-k", "1"}) == greedy);
  CHECK(sample({"--temperature", "5", "--seed", "7"}) == sample({"--temperature", "5", "--seed", "7"}));
  CHECK(sample({"--temperature", "5", "--seed", "7"}) != sample({"--temperature", "5", "--seed", "8"}));
  CHECK(run_program({"sample", folder / "run"}).code == kSuccess);
}

TEST_CASE("sample: uses a cache with window, softcap, sinks and ALiBi, and both kernels say the same") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  REQUIRE(
      run_program(tiny_training(run, {"--window", "3", "--softcap", "5", "--sinks", "--positions", "alibi"}))
          .code == kSuccess);
  const auto sample = [&] {
    const Output output = run_program({"sample", run, "--prompt", "2 1 0 1 2 0"});
    CAPTURE(output.err);
    CHECK(output.code == kSuccess);
    return output.out;
  };
  const std::string flash = sample();
  CHECK(flash.starts_with("2 1 0 1 2 0 -> "));
  auto config = nlohmann::ordered_json::parse(read_file(run + "/config.json"));
  config["attention"] = "naive";
  write_file(run + "/config.json", config.dump());
  CHECK(sample() == flash);
  config["sinks"] = false;
  write_file(run + "/config.json", config.dump());
  CHECK(run_program({"sample", run}).err.find("sinks") != std::string::npos);
}

TEST_CASE("sample: misuse and damaged runs are errors") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  REQUIRE(run_program(tiny_training(run)).code == kSuccess);
  CHECK(run_program({"sample", run, "--prompt", "2 x"}).err.find("`x` is not one of its symbols") !=
        std::string::npos);
  CHECK(run_program({"sample", run, "--prompt", " "}).err == "tilegrad: sample: the prompt has no symbol\n");
  CHECK(run_program({"sample", run, "--temperature", "-1"}).code == kWrongCommandLine);
  CHECK(run_program({"sample", folder / "none"}).code == kFailure);
  const std::string model = read_file(run + "/model.safetensors");
  write_file(run + "/model.safetensors", model.substr(0, model.size() - 1));
  check_error({"sample", run}, kFailure, "model.safetensors: is truncated");
}
