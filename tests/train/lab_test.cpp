#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/train/lab_output.h"
#include "tilegrad/base/error.h"
#include "tilegrad/base/lock.h"
#include "tilegrad/base/process.h"
#include "tilegrad/train/app/output_folder.h"
#include "tilegrad/train/labs/checkpoint_lab.h"
#include "tilegrad/train/labs/child.h"
#include "tilegrad/train/labs/flash_lab.h"
#include "tilegrad/train/labs/flash_measure.h"
#include "tilegrad/train/labs/lab_duration.h"
#include "tilegrad/train/labs/publish.h"

using namespace tilegrad;
using namespace tilegrad::train;

TEST_CASE("lab: rows of equal keys become lines of a CSV") {
  CHECK(csv_of(OrderedJson::array({{{"name", "a"}, {"n", 1}}, {{"name", "b, \"c\""}, {"n", nullptr}}})) ==
        "name,n\na,1\n\"b, \"\"c\"\"\",\n");
  CHECK(csv_of(OrderedJson::array()).empty());
}

TEST_CASE("lab: one list of columns makes a table and the rows of files") {
  const std::vector<Column<double>> columns = {
      {"value", "value", [](double x) { return x; }, number("{:.1f}")},
      {"", "squared", [](double x) { return x * x; }},
      {"root", "", [](double x) { return x < 0 ? OrderedJson() : OrderedJson(std::sqrt(x)); }}};
  const std::vector<double> rows = {4, -1};
  const Table table = table_of("title", columns, rows);
  CHECK(table.columns == std::vector<std::string>{"value", "root"});
  CHECK(table.rows == std::vector<std::vector<std::string>>{{"4.0", "2.0"}, {"-1.0", "-"}});
  CHECK(json_of(columns, rows).dump() == R"([{"value":4.0,"squared":16.0},{"value":-1.0,"squared":1.0}])");
}

TEST_CASE("lab: the median of several times and the distance of their quartiles") {
  const Timing timing = timing_of({5.0, 1.0, 2.0, 9.0, 4.0});
  CHECK(timing.ms == 4);
  CHECK(timing.spread_ms == 3);
  CHECK(timing_of({7.0}).ms == 7);
}

TEST_CASE("lab: what is compared are the medians of rounds, so that one disturbed round decides nothing") {
  const Timing timing = timing_of({1, 2, 9, 4, 5, 6, 7, 7, 8}, 3);
  CHECK(timing.round_ms == std::vector<double>{2, 5, 7});
  CHECK(timing.ms == 6);
  // Six repetitions in three rounds, of which the machine was slower in all of one kind: no finding.
  const Timing fast = timing_of({1, 1, 1, 1, 1, 1}, 3), slow = timing_of({2, 2, 2, 2, 2, 2}, 3);
  CHECK(sign_test(fast.round_ms, slow.round_ms) == Verdict::not_distinguishable);
  CHECK(LabOptions().rounds >= 6);
}

TEST_CASE("lab: --threads is that of each measurement, and stands in the results" *
          doctest::test_suite("slow")) {
  const TemporaryFolder folder;
  const Task task = {.measurement = "attention", .arguments = FlashTask{.seq = 8, .head_size = 4}};
  for (const int threads : {1, 3}) {
    LabOptions options = options_in(folder / "lab");
    options.threads = threads;
    CHECK(measure_in_child(options, task).at("threads") == threads);
  }
  const ChildResult lab =
      run_child(program_file(), {"lab", "flash", "--threads", "3", "--seq", "16", "--head-size", "4",
                                 "--repeats", "1", "--out", folder / "flash"});
  REQUIRE(lab.exit_code == kSuccess);
  CHECK(Json::parse(read_file(folder / "flash/flash.json")).at("configuration").at("threads") == 3);
  for (const char* command : {"bench", "check", "sample", "evaluate", "attention", "train"}) {
    CAPTURE(command);
    check_error({command, "--threads", "many"}, kWrongCommandLine, "--threads");
  }
  check_error({"lab", "heads", "--threads", "1025"}, kWrongCommandLine, "--threads");
}

TEST_CASE("lab: rounds join what was timed, and leave the rest as the first one found it") {
  const TemporaryFolder folder;
  const Task task = {.measurement = "attention",
                     .arguments = FlashTask{.seq = 8, .head_size = 4, .causal = true},
                     .repeats = 2};
  std::ostringstream out, err;
  const auto results =
      measure_interleaved(options_in(folder / "lab", 3), {task, task}, {.out = out, .err = err});
  CHECK(err.str().empty());  // no terminal, no progress
  REQUIRE(results.size() == 2);
  for (const Json& result : results) {
    CHECK(result.at("step_ms").size() == 6);
    CHECK(result.at("step_peak").is_number_integer());
  }
  CHECK(std::filesystem::is_empty(folder / "lab"));
}

TEST_CASE("lab: there are more rounds while a comparison is undecided, up to a bound") {
  const TemporaryFolder folder;
  const Task task = {.measurement = "attention", .arguments = FlashTask{.seq = 8, .head_size = 4}};
  std::ostringstream out, err;
  const auto rounds_until = [&](int first, int decided_after) {
    std::vector<int> asked;
    const Rounds measured = measure_until_decided(options_in(folder / "lab", first), {task},
                                                  {.out = out, .err = err}, [&](const Rounds& until) {
                                                    asked.push_back(until.count);
                                                    return until.count < decided_after;
                                                  });
    CHECK(measured.results.at(0).at("step_ms").size() == static_cast<std::size_t>(measured.count));
    return std::pair(measured.count, asked);
  };
  CHECK(rounds_until(6, 0) == std::pair(6, std::vector{6}));
  CHECK(rounds_until(6, 12) == std::pair(12, std::vector{6, 12}));
  CHECK(rounds_until(6, 100) == std::pair(24, std::vector{6, 12}));
  // Too few to decide anything were asked for.
  CHECK(rounds_until(2, 100) == std::pair(2, std::vector<int>()));
  CHECK(planned_rounds(options_in(folder / "lab", 2)) == "2 rounds");
  CHECK(planned_rounds(options_in(folder / "lab", 6)) == "6 rounds (up to 24 while undecided)");
}

TEST_CASE("lab: on a terminal the measurements are counted") {
  const TemporaryFolder folder;
  const Task task = {.measurement = "attention", .arguments = FlashTask{.seq = 8, .head_size = 4}};
  std::ostringstream out, err;
  measure_interleaved(options_in(folder / "lab", 2), {task}, {.out = out, .err = err, .terminal = true});
  CAPTURE(err.str());
  CHECK(err.str().find(
            "[                        ] 0 of 2 measurements\r[============            ] 1 of 2 ") == 1);
  CHECK(err.str().find(" left") != std::string::npos);
  CHECK(err.str().find("[========================] 2 of 2 measurements  done in ") != std::string::npos);
  CHECK(err.str().back() == '\n');
}

TEST_CASE("lab: how long all rounds take follows from the first") {
  const TemporaryFolder folder;
  const auto rounds = [&](int count) { return options_in(folder / "lab", count); };
  CHECK(describe(expected_of_rounds(rounds(6), 3)) == "about 18 s, up to 72 s while undecided");
  CHECK(describe(expected_of_rounds(rounds(2), 3)) == "about 6 s");
  CHECK(describe(expected_of_rounds(rounds(24), 10)) == "about 4 min");
  CHECK(describe(expected_of_rounds(rounds(6), 30) + 60.0) == "about 4 min, up to 13 min while undecided");
  CHECK(describe(Expected{.seconds = 0.1, .undecided = 0.2}) == "about 1 s");
  CHECK(describe(Expected{.seconds = 7200, .undecided = 7200}) == "about 2.0 h");

  const Task task = {.measurement = "attention", .arguments = FlashTask{.seq = 8, .head_size = 4}};
  std::ostringstream out, err;
  std::vector<std::vector<double>> asked;
  measure_until_decided(
      rounds(2), {task, task}, {.out = out, .err = err}, [](const Rounds&) { return false; },
      [&](const std::vector<double>& seconds) { asked.push_back(seconds); });
  REQUIRE(asked.size() == 1);
  REQUIRE(asked[0].size() == 2);
  CHECK(asked[0][1] > 0);
  CHECK(total(asked[0]) == asked[0][0] + asked[0][1]);
}

TEST_CASE("lab: a measurement that fails is reported") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH_AS(measure_in_child(options_in(folder / "lab"), {.measurement = "juggle"}),
                       "lab: the measurement `juggle` failed with exit code 1", Error);
}

TEST_CASE("lab checkpoint: every variant has the same bits, and the peak that was predicted") {
  const TemporaryFolder folder;
  const CheckpointLab lab = {.layers = 4, .seq = 48, .width = 32, .heads = 2, .batch = 2, .repeats = 1};
  const LabOutput output = run_lab(
      folder / "lab", "checkpoint",
      [&](const auto& options, const auto& console) { return run_checkpoint_lab(lab, options, console); });
  check_published(output, 7);
  const auto budget = output.json.at("configuration").at("budget_bytes").get<Index>();
  for (const Json& row : output.json.at("rows")) {
    CAPTURE(row.dump());
    CHECK(row.at("same_bits") == true);
    const auto peak = row.at("peak_bytes").get<double>();
    CHECK(row.at("predicted_peak_bytes").get<double>() == doctest::Approx(peak).epsilon(0.05));
    CHECK(row.at("peak_rss_bytes") > row.at("peak_bytes"));
    CHECK((row.at("variant") == "none") == (peak == output.row(0).at("peak_bytes")));
    CHECK((row.at("variant") == "none") == (row.at("recomputed_ops") == 0));
    if (row.at("variant") == "budget") CHECK(peak <= static_cast<double>(budget));
  }
}

TEST_CASE("lab checkpoint: misuse is reported in one line") {
  const TemporaryFolder folder;
  const std::string out = folder / "lab";
  check_error({"lab", "checkpoint", "--layers", "0"}, kWrongCommandLine, "--layers");
  check_error({"lab", "checkpoint", "--heads", "3", "--out", out}, kFailure,
              "heads 3 does not divide width 128");
  check_error({"lab", "checkpoint", "--budget", "much", "--out", out}, kFailure,
              "`much` is not a number of bytes");
  check_error({"lab", "checkpoint", "--d", "32", "--width", "64"}, kWrongCommandLine, "--width");
  check_error({"lab", "checkpoint", "--d", "0"}, kWrongCommandLine, "--head-size");
  check_error({"lab", "frobnicate"}, kWrongCommandLine, "`frobnicate` is not a command (tilegrad lab --help");
  check_error({"lab"}, kWrongCommandLine, "A subcommand is required");
  write_file(folder / "file", "in the way");
  check_error({"lab", "checkpoint", "--out", folder / "file"}, kFailure, "cannot be created");
  std::ostringstream out_stream, err;
  const CheckpointLab tight = {.layers = 2, .seq = 16, .width = 16, .heads = 2, .batch = 1, .budget = 1000};
  CHECK_THROWS_WITH_AS(run_checkpoint_lab(tight, options_in(out), {.out = out_stream, .err = err}),
                       doctest::Contains("(1000 bytes) is below the minimum"), Error);
}

TEST_CASE("lab flash: the kernels agree, and flash needs less memory by the score matrix at least") {
  const TemporaryFolder folder;
  const FlashLab lab = {.heads = 2, .seq = 192, .head_size = 16, .repeats = 1};
  const LabOutput output = run_lab(folder / "lab", "flash", [&](const auto& options, const auto& console) {
    return run_flash_lab(lab, options, console);
  });
  check_published(output, 4);
  const Index scores = 4 * lab.heads * lab.seq * lab.seq;
  for (const std::size_t pass : {0, 1}) {
    const Json &naive = output.row(pass), &flash = output.row(pass + 2);
    CHECK(naive.at("kernel") == "naive");
    CHECK(flash.at("pass") == naive.at("pass"));
    CHECK(naive.at("peak_bytes").get<Index>() - flash.at("peak_bytes").get<Index>() > scores / 2);
    CHECK(naive.at("operations") == flash.at("operations"));
    CHECK(naive.at("moved_bytes") > flash.at("moved_bytes"));
    CHECK(flash.at("peak_rss_bytes") > flash.at("peak_bytes"));
  }
  const Json& accuracy = output.json.at("details").at("accuracy");
  REQUIRE(accuracy.size() == 4);
  for (const Json& row : accuracy) {
    CHECK(row.at("max_rel_difference") < 1e-5);
    CHECK(row.at("flash_error").get<double>() <= 3 * row.at("naive_error").get<double>());
  }
  CHECK(output.json.at("finding").get<std::string>().find("less memory") != std::string::npos);
}

TEST_CASE("lab flash: a sweep ends where naive meets a limit, and flash grows in a line") {
  const TemporaryFolder folder;
  const FlashLab lab = {.heads = 2,
                        .seq = 64,
                        .head_size = 8,
                        .causal = true,
                        .dtype = Dtype::f64,
                        .sweep = true,
                        .memory_limit = Index{1} << 20,
                        .repeats = 1};
  const LabOutput output = run_lab(folder / "lab", "flash", [&](const auto& options, const auto& console) {
    return run_flash_lab(lab, options, console);
  });
  CHECK(output.code == kSuccess);
  const auto finding = output.json.at("finding").get<std::string>();
  CHECK(finding.find("naive needs more than 1.0 MiB at T = ") != std::string::npos);
  Index longest = 0;
  for (const Json& row : output.json.at("rows")) {
    if (row.at("kernel") == "naive") longest = std::max(longest, row.at("seq").get<Index>());
  }
  CHECK(output.json.at("rows").back().at("seq") > longest);
  CHECK(longest > 64);
}

TEST_CASE("lab flash: misuse is reported in one line") {
  const TemporaryFolder folder;
  check_error({"lab", "flash", "--seq", "0"}, kWrongCommandLine, "--seq");
  check_error({"lab", "flash", "--dtype", "i8"}, kWrongCommandLine, "i8");
  check_error({"lab", "flash", "--dtype", "f32,f17"}, kWrongCommandLine,
              "--dtype: `f17` is not f32, f64, bf16 or f16");
  check_error({"lab", "flash", "--dtype", "f32,"}, kWrongCommandLine, "--dtype: `` is not f32");
  check_error({"lab", "flash", "--dtype", "bf16,f16,bf16"}, kWrongCommandLine, "--dtype: bf16 stands twice");
  check_error({"lab", "flash", "--dtype", "f32", "f16"}, kWrongCommandLine, "`f16` is not an option here");
  check_error({"lab", "flash", "--input-std", "0"}, kWrongCommandLine, "--input-std");
  check_error({"lab", "flash", "--memory-limit", "none", "--out", folder / "lab"}, kFailure,
              "not a number of bytes");
}

TEST_CASE("lab: a folder that another lab is using is an error that names its process") {
  const TemporaryFolder folder;
  const std::string out = folder / "lab";
  const FolderLock other(out);
  // With a wrong setting, which is looked at later, so that no lab begins if the lock should fail.
  check_error({"lab", "checkpoint", "--heads", "3", "--out", out}, kFailure, "is in use by process");
}

TEST_CASE("lab: without --out the results of an earlier one stay") {
  const TemporaryFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder / "");
  make_folder("runs/lab-checkpoint");
  write_file("runs/lab-checkpoint/environment.json", "{}");
  // Too small a budget ends the lab before it measures.
  check_error({"lab", "checkpoint", "--heads", "3"}, kFailure, "heads");
  CHECK(free_folder("runs/lab-checkpoint") == "runs/lab-checkpoint-2");
  const FolderLock other("runs/lab-checkpoint-2");
  check_error({"lab", "checkpoint", "--heads", "3"}, kFailure, "runs/lab-checkpoint-2: is in use by process");
  std::filesystem::current_path(before);
}
