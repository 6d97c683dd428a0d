#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "tests/limits.h"
#include "tests/train/run_program.h"
#include "tilegrad/base/memory.h"
#include "tilegrad/train/labs/bench_measure.h"
#include "tilegrad/train/labs/bench_report.h"
#include "tilegrad/train/labs/speed_finding.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

// A bench that takes no time.
Output tiny_bench(const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"bench", "--q-len", "40", "--d", "8", "--seconds", "0"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run_program(arguments);
}

std::vector<nlohmann::json> lines_of(const Output& output) {
  CAPTURE(output.err);
  CHECK(output.code == kSuccess);
  std::vector<nlohmann::json> lines;
  std::istringstream in(output.out);
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

std::set<std::string> keys_of(const nlohmann::json& object) {
  std::set<std::string> keys;
  for (const auto& item : object.items()) keys.insert(item.key());
  return keys;
}

// Nine repetitions that took the same time.
std::vector<double> always(double ms) { return std::vector<double>(9, ms); }

SweepRow row_of(Index time, double naive_forward, double flash_forward, double naive_backward,
                double flash_backward) {
  return {.time = time,
          .naive_forward = always(naive_forward),
          .flash_forward = always(flash_forward),
          .naive_backward = always(naive_backward),
          .flash_backward = always(flash_backward),
          .looks = {9}};
}

// A sweep in which flash wins forward from the second length on, and never with its backward pass.
std::vector<SweepRow> example_sweep() {
  return {row_of(32, 1, 2, 1, 2), row_of(64, 4, 3, 4, 9), row_of(128, 9, 8, 1, 9)};
}

}  // namespace

TEST_CASE("bench: JSON has a line for each type and pass, and every number in it") {
  const auto lines = lines_of(tiny_bench({"--backward", "--json", "--threads", "2"}));
  REQUIRE(lines.size() == 4);
  const std::vector<std::string> types = {"naive", "naive", "flash", "flash"};
  for (std::size_t i = 0; i < lines.size(); ++i) {
    CAPTURE(i);
    const nlohmann::json& line = lines[i];
    CHECK(keys_of(line) == std::set<std::string>{"type", "pass", "threads", "ms", "gflops", "peak_gflops",
                                                 "fraction", "peak_bytes", "max_abs_diff",
                                                 "share_of_others"});
    CHECK(line["type"] == types[i]);
    CHECK(line["pass"] == (i % 2 == 0 ? "forward" : "backward"));
    CHECK(line["threads"] == 2);
    CHECK(line["ms"] > 0);
    CHECK(line["peak_gflops"] > 0);
    const double flops = (i % 2 == 0 ? 1 : 2.5) * 4.0 * 2 * 40 * 40 * 8;
    CHECK(line["gflops"].get<double>() == doctest::Approx(1e-6 * flops / line["ms"].get<double>()));
    CHECK(line["fraction"].get<double>() ==
          doctest::Approx(line["gflops"].get<double>() / line["peak_gflops"].get<double>()));
    CHECK(line["max_abs_diff"] < 1e-4);
    CHECK(line["max_abs_diff"] > 0);
  }
  CHECK(lines[0]["max_abs_diff"] == lines[2]["max_abs_diff"]);
  CHECK(lines[0]["max_abs_diff"] != lines[1]["max_abs_diff"]);
}

TEST_CASE("bench: one type alone has nothing to differ from") {
  for (const std::string type : {"flash", "naive", "normal"}) {
    const auto lines = lines_of(tiny_bench({type == "naive" ? "--attention" : "--type", type, "--json"}));
    REQUIRE(lines.size() == 1);
    CHECK(lines[0]["type"] == (type == "flash" ? "flash" : "naive"));
    CHECK(lines[0]["pass"] == "forward");
    CHECK(lines[0]["max_abs_diff"].is_null());
    CHECK(lines[0]["ms"] > 0);
  }
}

TEST_CASE("bench: peak memory is what a pass takes beyond its inputs") {
  const auto lines = lines_of(tiny_bench({"--q-len", "256", "--d", "4", "--backward", "--json"}));
  REQUIRE(lines.size() == 4);
  const Index scores = 2 * 256 * 256 * 4;
  CHECK(lines[0]["peak_bytes"] >= scores);
  CHECK(lines[1]["peak_bytes"] >= scores);
  const Index outputs = 2 * 256 * (4 + 1) * 4;  // out and lse
  CHECK(lines[2]["peak_bytes"] >= outputs);
  CHECK(lines[3]["peak_bytes"] >= outputs);
}

TEST_CASE("bench: the options describe one problem" * doctest::test_suite("slow")) {
  const Output output = tiny_bench({"--b", "3", "--h", "4", "--kv-heads", "2", "--kv-len", "50", "--causal",
                                    "--window", "7", "--mask", "random", "--dtype", "f64"});
  CAPTURE(output.err);
  REQUIRE(output.code == kSuccess);
  CHECK(output.out.find("q (3, 40, 4, 8), k and v (3, 50, 2, 8), f64, causal, 7 keys to the left, a random "
                        "mask\n") != std::string::npos);
  CHECK(tiny_bench({"--window", "3"}).out.find("f32, 3 keys to the left, 3 keys to the right\n") !=
        std::string::npos);
  CHECK(tiny_bench({"--window", "3,0"}).out.find("f32, 3 keys to the left, 0 keys to the right\n") !=
        std::string::npos);
}

TEST_CASE("bench: the table shows the machine, the problem and a row for each type and pass") {
  const Output output = tiny_bench({"--backward"});
  for (const char* part :
       {"FMA peak", "GB/s", "L2", "q (1, 40, 2, 8), k and v (1, 40, 2, 8), f32\n", "half of them in",
        "of peak", "peak memory", "moved by model", "differs by", "\nnaive forward ", "\nnaive backward ",
        "\nflash forward ", "\nflash backward "}) {
    CAPTURE(part);
    CHECK(output.out.find(part) != std::string::npos);
  }
  CHECK(output.out.find("f32\nnaive and flash, interleaved, at least 3 calls of each: about 1 s\n") !=
        std::string::npos);
}

TEST_CASE("bench: what does not fit into memory is skipped, or an error if it was asked for by name") {
  const Index live = memory::usage().live;
  const std::vector<std::string> size = {"--h", "1", "--q-len", "1024", "--d", "1", "--json"};
  const test::MemoryLimit limit(live + (Index{4} << 20) - 1);  // the score matrix alone is 4 MiB
  const auto with = [&](const std::string& type) {
    std::vector<std::string> arguments = size;
    arguments.insert(arguments.end(), {"--type", type});
    return tiny_bench(arguments);
  };
  const Output both = with("both");
  CAPTURE(both.err);
  CHECK(both.err.starts_with("warning: naive is skipped: out of memory: 4.0 MiB requested"));
  CHECK(std::count(both.err.begin(), both.err.end(), '\n') == 1);
  const auto lines = lines_of(both);
  REQUIRE(lines.size() == 2);
  CHECK(lines[0]["type"] == "naive");
  for (const char* key : {"ms", "gflops", "fraction", "peak_bytes", "max_abs_diff"}) {
    CAPTURE(key);
    CHECK(lines[0][key].is_null());
  }
  CHECK(lines[1]["ms"] > 0);
  CHECK(lines[1]["max_abs_diff"].is_null());
  check_error(with("naive"), kFailure, "out of memory: 4.0 MiB requested");
}

TEST_CASE("bench: every option has one long name, and the short ones mean the same") {
  const std::string problem = "q (3, 40, 4, 8), k and v (3, 40, 2, 8), f32\n";
  const Output long_names = run_program({"bench", "--batch", "3", "--heads", "4", "--kv-heads", "2", "--seq",
                                         "40", "--head-size", "8", "--attention", "flash", "--seconds", "0"});
  CAPTURE(long_names.err);
  CHECK(long_names.out.starts_with(problem));
  const Output short_names = run_program({"bench", "--b", "3", "--h", "4", "--gqa-groups", "2", "--q-len",
                                          "40", "--d", "8", "--type", "flash", "--seconds", "0"});
  CAPTURE(short_names.err);
  CHECK(short_names.out.starts_with(problem));
}

TEST_CASE("bench: says which kernel is faster only if the repetitions support it") {
  const auto finding = [](const std::vector<double>& flash, const std::vector<double>& naive) {
    return speed_finding("flash", "naive", flash, naive, sign_test(flash, naive));
  };
  CHECK(finding(always(2), always(3)) == "flash is 1.50x faster than naive");
  CHECK(finding(always(3), always(2)) == "flash is 1.50x slower than naive");
  // Twice as fast as a rule, but it lost three of nine.
  CHECK(finding({1, 1, 1, 1, 1, 1, 9, 9, 9}, always(2)) ==
        "the times of flash and naive are not distinguishable");
  // Three repetitions decide nothing.
  CHECK(finding({1, 1, 1}, {9, 9, 9}) == "the times of flash and naive are not distinguishable");
  CHECK(tiny_bench({}).out.find("\nthe times of flash and naive are not distinguishable (forward)\n") !=
        std::string::npos);
}

TEST_CASE("bench: a result that is not finite is an error") {
  BenchCase bench = {.problem = {.tq = 4, .tk = 4, .head_size = 2}, .seconds = 0};
  bench.problem.options.scale = 3e38;  // a score beyond the range of float
  CHECK_THROWS_WITH_AS(run_bench(bench), "bench: naive gives a result that is not finite", Error);
}

TEST_CASE("bench: misuse is an error") {
  check_error(tiny_bench({"--h", "4", "--kv-heads", "3"}), kFailure, "3 key/value heads do not divide 4");
  check_error(tiny_bench({"--causal", "--window", "2,1"}), kFailure, "causal sees nothing to the right");
  check_error(tiny_bench({"--window", "-1"}), kFailure, "the window reaches -1 to the left");
  check_error(tiny_bench({"--type", "fast"}), kWrongCommandLine, "fast");
  check_error(tiny_bench({"--d", "0"}), kWrongCommandLine, "--head-size");
  check_error(tiny_bench({"--mask", "some"}), kWrongCommandLine, "some");
  check_error(tiny_bench({"--window", "1,2,3"}), kWrongCommandLine, "");
  check_error(tiny_bench({"--sweep", "--json"}), kWrongCommandLine, "--json");
  check_error(tiny_bench({"--out", "x.csv"}), kWrongCommandLine, "--sweep");
  check_error(tiny_bench({"--q-len", "31", "--sweep"}), kFailure, "a sweep begins at 32, --seq is 31");
  check_error(tiny_bench({"--b", "1000000000000"}), kFailure, "of memory");
  check_error(tiny_bench({"--profile", "/proc/tilegrad/trace.json"}), kFailure, "/proc/tilegrad");
}

TEST_CASE("bench: a sweep prints a table and a verdict and writes CSV") {
  const TemporaryFolder folder;
  const Output output = tiny_bench({"--sweep", "--q-len", "100", "--causal", "--out", folder / "sweep.csv"});
  CAPTURE(output.err);
  REQUIRE(output.code == kSuccess);
  CHECK(output.out.starts_with("lengths 32 to 64, forward and backward; naive and flash, interleaved, "));
  CHECK(output.out.find("\nflash is faster ") != std::string::npos);
  std::istringstream csv(read_file(folder / "sweep.csv"));
  std::string line;
  std::getline(csv, line);
  CHECK(line == "T,naive_forward_ms,flash_forward_ms,naive_backward_ms,flash_backward_ms");
  for (const std::string time : {"32", "64"}) {
    REQUIRE(std::getline(csv, line));
    CHECK(line.starts_with(time + ","));
    CHECK(std::count(line.begin(), line.end(), ',') == 4);
    CHECK(line.find(",,") == std::string::npos);
  }
  CHECK_FALSE(std::getline(csv, line));
}

TEST_CASE("bench: the verdict of a sweep names the length from which on flash always wins") {
  std::vector<SweepRow> rows = example_sweep();
  CHECK(sweep_verdict(rows) ==
        "flash is faster from T = 64 on (forward), at no T up to 128 (forward + backward)");
  // What naive cannot do at all, flash does faster.
  rows.push_back({.time = 256, .flash_forward = always(100), .flash_backward = always(100), .looks = {9}});
  CHECK(sweep_verdict(rows) ==
        "flash is faster from T = 64 on (forward), from T = 256 on (forward + backward)");
  CHECK(sweep_csv(rows).ends_with("\n256,,100,,100\n"));
  rows[1].naive_forward = always(1);
  rows.erase(rows.begin());
  CHECK(sweep_verdict(rows).starts_with("flash is faster from T = 128 on (forward)"));
  // Faster in three of four repetitions only: that can be chance.
  rows[1].naive_forward = {9, 9, 9, 7};
  rows[1].flash_forward = {8, 8, 8, 8};
  rows[1].looks = {4};
  CHECK(sweep_verdict(rows).starts_with("flash is faster from T = 256 on (forward)"));
}

TEST_CASE("bench: the profile is a trace with an event for each timed call and memory as counters") {
  const TemporaryFolder folder;
  const std::string file = folder / "trace.json";
  REQUIRE(tiny_bench({"--backward", "--profile", file}).code == kSuccess);
  const nlohmann::json trace = nlohmann::json::parse(read_file(file));
  std::map<std::string, int> events, counters;
  double before = 0;
  for (const nlohmann::json& entry : trace["traceEvents"]) {
    if (entry["ph"] == "C") ++counters[entry["name"]];
    if (entry["ph"] != "X") continue;
    ++events[entry["name"]];
    CHECK(entry["cat"] == "attention");
    CHECK(entry["ts"] >= before);  // calls follow each other
    before = entry["ts"].get<double>() + entry["dur"].get<double>();
    const std::string name =
        entry["args"]["kernel"].get<std::string>() + " " + entry["args"]["pass"].get<std::string>();
    CHECK(entry["name"] == name);
  }
  REQUIRE(events.size() == 4);
  for (const auto& event : events) CHECK(event.second == 3);  // the fewest repetitions
  CHECK(counters["live bytes"] == 2 * 12);
  CHECK(counters["peak bytes"] == 12);
}

TEST_CASE("bench --profile: prints the stages of each kernel that was timed") {
  const TemporaryFolder folder;
  const Output output = tiny_bench({"--backward", "--profile", folder / "trace.json"});
  REQUIRE(output.code == kSuccess);
  for (const char* text : {"Ops of naive: mean of calls 1 to 3", "Ops of flash: mean of calls 1 to 3",
                           "softmax", "P V", "dV = Pᵀ dO", "waiting to add to dQ"}) {
    CAPTURE(text);
    CHECK(output.out.find(text) != std::string::npos);
  }
  CHECK(tiny_bench({"--backward"}).out.find("Ops of") == std::string::npos);
}
