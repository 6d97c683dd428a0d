#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/limits.h"
#include "tests/train/run_program.h"
#include "tilegrad/train/run/metrics.h"

using namespace tilegrad;
using namespace tilegrad::train;

TEST_CASE("errors: a command line that says nothing sensible ends with 2") {
  check_error({"train", "--frobnicate"}, kWrongCommandLine, "--frobnicate");
  check_error({"train", "--task", "juggle"}, kWrongCommandLine, "juggle");
  check_error({"train", "--layers", "many"}, kWrongCommandLine, "many");
  check_error({"train", "--task", "sort", "--text", "x"}, kWrongCommandLine, "--text");
  check_error({"tarin"}, kWrongCommandLine, "`tarin` is not a command");
  check_error(run_program({}), kWrongCommandLine, "subcommand");
  check_error({"sample"}, kWrongCommandLine, "run");
  check_error({"train", "sort"}, kWrongCommandLine, "sort");
}

TEST_CASE("errors: --help shows the options in groups and ends with 0") {
  const Output output = run_program({"train", "--help"});
  CHECK(output.code == 0);
  for (const char* part : {"Model", "Attention", "Memory", "Optimiser", "--kv-heads", "--checkpoint"}) {
    CHECK(output.out.find(part) != std::string::npos);
  }
}

TEST_CASE("errors: a model that makes no sense") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  const auto with = [&](const std::string& option, const std::string& value) {
    return std::vector<std::string>{"train", option, value, "--out", out};
  };
  check_error(with("--kv-heads", "2"), kFailure, "kv_heads 2 does not divide heads 3");
  check_error(with("--kv-heads", "0"), kFailure, "kv_heads is 0");
  check_error(with("--heads", "5"), kFailure, "heads 5 does not divide width 48");
  check_error(with("--width", "0"), kFailure, "width is 0");
  check_error(with("--context", "0"), kFailure, "sort: context 0 is shorter than its examples of 11 tokens");
  check_error(with("--window", "-1"), kFailure, "window is -1, must not be negative");
  check_error(with("--softcap", "0"), kFailure, "softcap is 0, must be positive");
  check_error(with("--softcap", "inf"), kFailure, "softcap is inf, must be positive");
  check_error(with("--window", "far"), kWrongCommandLine, "far");
  check_error(with("--layers", "-3"), kFailure, "layers is -3");
  check_error(with("--layers", "0"), kFailure, "layers is 0");
  check_error(with("--layers", "100000000"), kFailure, "of memory");
  check_error(with("--layers", "1000000000000000000"), kFailure, "layers is 1000000000000000000");
  check_error(with("--width", "3000000000"), kFailure, "width is 3000000000");
  check_error(with("--checkpoint", "9"), kFailure, "checkpoint: 9 segments of 3 layers");
  check_error(with("--checkpoint", "sometimes"), kWrongCommandLine, "`sometimes` is not none, block");
  check_error(with("--checkpoint", "budget:lots"), kWrongCommandLine, "`lots` is not a number of bytes");
  check_error(with("--checkpoint", "budget:0"), kWrongCommandLine, "`0` is not a number of bytes");
  check_error(with("--checkpoint", "budget:1KiB"), kFailure,
              "a budget of 1.0 KiB (1024 bytes) is below the minimum");
  check_error(with("--dropout", "1"), kFailure, "dropout is 1");
  check_error(with("--symbols", "1"), kFailure, "sort: length 6 and 1 symbols");
  CHECK_FALSE(std::filesystem::exists(out));
}

TEST_CASE("errors: settings of optimiser and run that make no sense") {
  const TemporaryFolder folder;
  check_error({"train", "--steps", "0"}, kFailure, "steps: is 0, must be at least 1");
  check_error({"train", "--batch", "-1"}, kFailure, "batch: is -1, must be at least 1");
  check_error({"train", "--lr", "-1"}, kFailure, "lr: is -1, must be positive");
  check_error({"train", "--lr", "nan"}, kFailure, "lr: is nan");
  check_error({"train", "--min-lr", "1"}, kFailure, "min-lr: is 1");
  check_error({"train", "--beta1", "1"}, kFailure, "beta1: is 1, not in [0, 1)");
  check_error({"train", "--out", ""}, kFailure, "out: names no folder");
}

TEST_CASE("errors: a text that cannot be learned from") {
  const TemporaryFolder folder;
  const auto train = [&](const std::string& file) {
    return std::vector<std::string>{"train", "--text", file, "--out", folder / "run"};
  };
  check_error(train(folder / "missing"), kFailure, "no such file");
  check_error(train(folder / ""), kFailure, "is a folder, not a file");
  write_file(folder / "empty", "");
  check_error(train(folder / "empty"), kFailure, "text: is empty");
  write_file(folder / "short", "to be or not to be");
  check_error(train(folder / "short"), kFailure, "18 bytes are too few for a context of 64");
  auto no_context = train(folder / "short");
  no_context.insert(no_context.end(), {"--context", "0"});
  check_error(no_context, kFailure, "context is 0, must be at least 1");
  if (geteuid() != 0) {  // root may read everything
    write_file(folder / "secret", "to be or not to be");
    std::filesystem::permissions(folder / "secret", std::filesystem::perms::none);
    check_error(train(folder / "secret"), kFailure, "cannot be opened: Permission denied");
  }
  CHECK_FALSE(std::filesystem::exists(folder / "run"));
}

TEST_CASE("errors: a folder that cannot be written to") {
  const TemporaryFolder folder;
  write_file(folder / "file", "in the way");
  check_error(tiny_training(folder / "file"), kFailure, "cannot be created");
  check_error(tiny_training(folder / "file/run"), kFailure, "cannot be created");
  check_error(tiny_training("/proc/tilegrad"), kFailure, "cannot be created");
  check_error({"compare", "--task", "copy", "--out", folder / "file"}, kFailure, "cannot be created");
  if (geteuid() != 0) {  // root may write everywhere
    std::filesystem::create_directory(folder / "locked");
    std::filesystem::permissions(folder / "locked",
                                 std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
    check_error(tiny_training(folder / "locked"), kFailure,
                "locked: cannot be written to: Permission denied");
  }
}

TEST_CASE(
    "errors: a full disk while metrics are written is reported, and the model saved before stays whole") {
  const TemporaryFolder folder;
  REQUIRE(run_program(tiny_training(folder / "run", {"--stop-after", "4"})).code == kSuccess);
  const std::string model = read_file(folder / "run/model.safetensors");
  const std::string state = read_file(folder / "run/state.safetensors");
  // Files may not grow beyond what metrics.jsonl has now and a little more: every further write fails.
  {
    const test::FileSizeLimit limit(read_file(folder / "run/metrics.jsonl").size() + 200);
    check_error({"train", "--resume", folder / "run", "--quiet", "--log-level", "off"}, kFailure,
                "metrics.jsonl: cannot be written: File too large");
  }
  CHECK(read_file(folder / "run/model.safetensors") == model);
  CHECK(read_file(folder / "run/state.safetensors") == state);
  REQUIRE(run_program({"train", "--resume", folder / "run", "--quiet"}).code == kSuccess);
  CHECK(read_metrics(folder / "run/metrics.jsonl").steps.size() == 12);
}

TEST_CASE("errors: a loss that is not finite is reported, by op when anomalies are looked for") {
  const TemporaryFolder folder;
  const Output output = run_program(tiny_training(
      folder / "run", {"--lr", "1e30", "--clip", "0", "--detect-anomaly", "--log-level", "off"}));
  CHECK(output.code == kFailure);
  CHECK(std::count(output.err.begin(), output.err.end(), '\n') == 1);
}

TEST_CASE("errors: a number is decimal, and one that does not fit is an error") {
  const TemporaryFolder folder;
  const auto with = [&](const std::string& option, const std::string& value) {
    return tiny_training(folder / "run", {option + "=" + value, "--stop-after", "1", "--overwrite"});
  };
  const auto seed_of = [&](const std::string& value) {
    REQUIRE(run_program(with("--seed", value)).code == kSuccess);
    return nlohmann::json::parse(read_file(folder / "run/config.json"))["seed"].get<std::uint64_t>();
  };
  CHECK(seed_of("010") == 10);
  CHECK(seed_of("008") == 8);
  CHECK(seed_of("18446744073709551615") == ~std::uint64_t{0});
  check_error(with("--seed", "18446744073709551616"), kWrongCommandLine, "`18446744073709551616`");
  check_error(with("--seed", "-1"), kWrongCommandLine, "`-1` is not an integer between 0 and");
  check_error(with("--steps", "100000000000000000000"), kWrongCommandLine, "`100000000000000000000`");
  check_error(with("--window", "1e3"), kWrongCommandLine, "`1e3` is not an integer");
  check_error(with("--layers", "0x2"), kWrongCommandLine, "`0x2` is not an integer");
}

TEST_CASE("errors: numbers are decimal in every command") {
  const std::vector<std::vector<std::string>> commands = {
      {"sample", "run", "--seed"},
      {"sample", "run", "--tokens"},
      {"sample", "run", "--top-k"},
      {"lab", "flash", "--seq"},
      {"lab", "flash", "--seed"},
      {"lab", "checkpoint", "--width"},
      {"lab", "checkpoint", "--head-size"},
      {"lab", "flash", "--kv-len"},
      {"lab", "flash", "--window"},
      {"lab", "flash", "--threads"},
      {"lab", "heads", "--repeats"},
      {"lab", "heads", "--seeds"},
      {"bench", "--seq"},
      {"bench", "--threads"},
      {"bench", "--window"},
      {"attention", "--in", "x", "--out", "y", "--seed"},
      {"attention", "--in", "x", "--out", "y", "--window-left"}};
  for (const auto& command : commands) {
    for (const std::string bad : {"0x10", "1e3", "18446744073709551616"}) {
      auto arguments = command;
      arguments.back() += "=" + bad;
      check_error(arguments, kWrongCommandLine, "`" + bad + "` is not an integer between ");
    }
  }
}

TEST_CASE("errors: sizes that no machine has are reported in one line, at once") {
  const TemporaryFolder folder;
  const auto with = [&](std::vector<std::string> options) {
    options.insert(options.begin(), {"train", "--out", folder / "run"});
    return options;
  };
  const std::string max = "9223372036854775807";
  check_error(with({"--task", "copy", "--batch", "2147483648"}), kFailure, "a batch of 2147483648 sequences");
  check_error(with({"--task", "copy", "--batch", max}), kFailure, "batch: is 9223372036854775807");
  check_error(with({"--task", "copy", "--symbols", "2147483647"}), kFailure, "copy: symbols is 2147483647");
  check_error(with({"--task", "add", "--length", "6148914691236517205"}), kFailure,
              "add: length is 6148914691236517205");
  check_error(with({"--task", "recall", "--pairs", max, "--symbols", max}), kFailure, "recall: ");
  check_error(with({"--task", "sort", "--steps", max}), kFailure, "steps: is 9223372036854775807");
  check_error(with({"--task", "sort", "--warmup", max}), kFailure, "warmup: is 9223372036854775807");
  check_error(with({"--task", "sort", "--hidden", max}), kFailure, "hidden is 9223372036854775807");
  check_error(with({"--task", "sort", "--context", max}), kFailure, "context is 9223372036854775807");
  CHECK_FALSE(std::filesystem::exists(folder / "run"));
}

TEST_CASE("errors: weights that are not finite are not saved, and end the run with an error") {
  const TemporaryFolder folder;
  check_error(
      tiny_training(folder / "run", {"--lr", "1e308", "--warmup", "0", "--steps", "1", "--log-level", "off"}),
      kFailure, "the weights are no longer finite; they are not saved");
  CHECK_FALSE(std::filesystem::exists(folder / "run/model.safetensors"));
}

TEST_CASE("train: a text is read once, so that a pipe is one, and an endless text is an error") {
  const TemporaryFolder folder;
  const std::string fifo = folder / "pipe";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  std::string text;
  for (int i = 0; i < 100; ++i) text += "abcdefgh\n";
  std::thread writer([&] { std::ofstream(fifo) << text; });
  const auto learning = [&](const std::string& from, const std::string& out) {
    return std::vector<std::string>{"train", "--text",       from, "--layers",  "1", "--width",
                                    "8",     "--heads",      "1",  "--context", "8", "--steps",
                                    "4",     "--stop-after", "2",  "--out",     out, "--quiet"};
  };
  const Output piped = run_program(learning(fifo, folder / "piped"));
  writer.join();
  CHECK(piped.code == kSuccess);
  write_file(folder / "text", text);
  REQUIRE(run_program(learning(folder / "text", folder / "read")).code == kSuccess);
  CHECK(read_file(folder / "piped/model.safetensors") == read_file(folder / "read/model.safetensors"));
  // The run can go on with the same text in another place.
  CHECK(run_program({"train", "--resume", folder / "piped", "--text", folder / "text", "--quiet"}).code ==
        kSuccess);
  check_error({"compare", "--text", "/dev/null", "--out", folder / "compared"}, kFailure,
              "/dev/null: is not a regular file, and each variant reads the text again");
  const test::MemoryLimit limit(Index{64} << 20);
  check_error(learning("/dev/zero", folder / "endless"), kFailure, "/dev/zero: is longer than");
}
