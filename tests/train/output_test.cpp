#include <doctest/doctest.h>

#include <cstdlib>
#include <streambuf>

#include "tests/train/run_program.h"
#include "tilegrad/base/lock.h"
#include "tilegrad/nn/safetensors.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

namespace fs = std::filesystem;

// Relative paths start in the folder while it lives.
class WorkingFolder {
 public:
  explicit WorkingFolder(const fs::path& folder) : outer_(fs::current_path()) { fs::current_path(folder); }
  ~WorkingFolder() { fs::current_path(outer_); }
  WorkingFolder(const WorkingFolder&) = delete;
  WorkingFolder& operator=(const WorkingFolder&) = delete;

 private:
  fs::path outer_;
};

// All that a run leaves, apart from what depends on the clock.
std::vector<std::string> files_of(const std::string& run) {
  return {read_file(run + "/config.json"), read_file(run + "/model.safetensors"),
          read_file(run + "/state.safetensors")};
}

std::vector<std::string> without_out(const std::vector<std::string>& arguments) {
  std::vector<std::string> rest;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--out") {
      ++i;
    } else {
      rest.push_back(arguments[i]);
    }
  }
  return rest;
}

// The exit code of `tilegrad <line>`, with redirections, as a shell runs it.
int shell(const std::string& line) {
  const int status = std::system((program_file().string() + " " + line).c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Takes nothing, as a full disk does.
class FullBuffer : public std::streambuf {};

}  // namespace

TEST_CASE("output: a second run does not touch the first one, and the message names the ways out") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  REQUIRE(run_program(tiny_training(run)).code == kSuccess);
  const auto before = files_of(run);
  check_error(tiny_training(run, {"--seed", "2"}), kFailure,
              run + ": holds results already; use --resume " + run + ", --overwrite or --out " + run + "-2");
  check_error(tiny_training(run + "/", {"--seed", "2"}), kFailure, "--out " + run + "-2");
  CHECK(files_of(run) == before);
  CHECK_FALSE(fs::exists(run + "-2"));
}

TEST_CASE("output: --overwrite makes the run that an empty folder would get") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  REQUIRE(run_program(tiny_training(run, {"--profile"})).code == kSuccess);
  write_file(run + "/notes.txt", "mine");
  REQUIRE(run_program(tiny_training(run, {"--seed", "2", "--overwrite"})).code == kSuccess);
  const auto replaced = files_of(run);
  CHECK(read_file(run + "/notes.txt") == "mine");
  CHECK_FALSE(fs::exists(run + "/previous"));
  CHECK_FALSE(fs::exists(run + "/ops.json"));
  fs::remove_all(run);
  REQUIRE(run_program(tiny_training(run, {"--seed", "2"})).code == kSuccess);
  CHECK(files_of(run) == replaced);
}

TEST_CASE("output: a run that fails before it has saved leaves the one that it was to replace") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  REQUIRE(run_program(tiny_training(run)).code == kSuccess);
  const auto before = files_of(run);
  const std::string metrics = read_file(run + "/metrics.jsonl");
  const std::vector<std::string> diverging = {"--overwrite", "--lr", "1e30", "--clip", "0", "--warmup", "0"};
  CHECK(run_program(tiny_training(run, diverging)).code == kFailure);
  CHECK(files_of(run) == before);
  CHECK(read_file(run + "/metrics.jsonl") == metrics);
  CHECK_FALSE(fs::exists(run + "/previous"));
}

TEST_CASE("output: the run before one that was killed unsaved is still there") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  REQUIRE(run_program(tiny_training(run)).code == kSuccess);
  const auto before = files_of(run);
  // What a kill leaves: the old files aside, and the new run without a state.
  fs::create_directory(run + "/previous");
  for (const char* file : {"/config.json", "/model.safetensors", "/state.safetensors"}) {
    fs::rename(run + file, run + "/previous" + file);
  }
  write_file(run + "/config.json", "{}");
  const std::vector<std::string> diverging = {"--overwrite", "--lr", "1e30", "--clip", "0", "--warmup", "0"};
  CHECK(run_program(tiny_training(run, diverging)).code == kFailure);
  CHECK(files_of(run) == before);
}

TEST_CASE("output: default folders are numbered, and --repeat makes a new one") {
  const TemporaryFolder folder;
  const WorkingFolder working(folder / "");
  const auto train = without_out(tiny_training("unused"));
  REQUIRE(run_program(train).code == kSuccess);
  const auto first = files_of("runs/sort");
  REQUIRE(run_program(train).code == kSuccess);
  CHECK(fs::exists("runs/sort-2/model.safetensors"));
  REQUIRE(run_program({"train", "--repeat", "runs/sort", "--quiet"}).code == kSuccess);
  REQUIRE(run_program({"train", "--repeat", "runs/sort/config.json", "--quiet"}).code == kSuccess);
  CHECK(files_of("runs/sort") == first);
  CHECK(files_of("runs/sort-3")[1] == first[1]);
  CHECK(files_of("runs/sort-4")[1] == first[1]);
  REQUIRE(run_program({"train", "--config", "runs/sort/config.json", "--seed", "9", "--quiet"}).code ==
          kSuccess);
  CHECK(files_of("runs/sort") == first);
  CHECK(files_of("runs/sort-5")[1] != first[1]);
}

TEST_CASE("output: options that would have no effect are errors") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  REQUIRE(run_program(tiny_training(run)).code == kSuccess);
  check_error({"train", "--repeat", run, "--seed", "9"}, kFailure, "repeat: --seed has no effect");
  check_error({"train", "--repeat", run, "--config", run + "/config.json"}, kFailure,
              "repeat: --config has no effect");
  check_error({"train", "--resume", run, "--overwrite"}, kWrongCommandLine, "--overwrite");
  check_error({"train", "--resume", "", "--out", folder / "other"}, kFailure, "resume: names no folder");
  check_error({"train", "--repeat", "", "--out", folder / "other"}, kFailure, "repeat: names no run");
  CHECK_FALSE(fs::exists(folder / "other"));
}

TEST_CASE("output: a folder in which another process works is refused") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  REQUIRE(run_program(tiny_training(run, {"--stop-after", "2"})).code == kSuccess);
  {
    const FolderLock other(run);
    check_error({"train", "--resume", run}, kFailure, run + ": is in use by process ");
    check_error(tiny_training(run, {"--overwrite"}), kFailure, run + ": is in use by process ");
    check_error({"compare", "--variants", "mha", "--overwrite", "--out", run}, kFailure,
                run + ": is in use by process ");
  }
  CHECK(run_program({"train", "--resume", run, "--quiet"}).code == kSuccess);
}

TEST_CASE("output: a comparison is kept by the same one, and written over by another only if it is to be") {
  const TemporaryFolder folder;
  const std::string line =
      "compare --steps 2 --layers 1 --width 12 --batch 2 --variants mha-flash --quiet --out " +
      (folder / "cmp") + " >/dev/null 2>&1";
  const auto with = [&](const std::string& option) {
    return "compare " + option + line.substr(std::string("compare").size());
  };
  CHECK(shell(line) == kSuccess);
  const auto saved = fs::last_write_time(folder / "cmp/mha-flash/state.safetensors");
  CHECK(shell(line) == kSuccess);
  CHECK(fs::last_write_time(folder / "cmp/mha-flash/state.safetensors") == saved);
  CHECK(shell(with("--seed 2")) == kFailure);
  CHECK(fs::last_write_time(folder / "cmp/mha-flash/state.safetensors") == saved);
  CHECK(shell(with("--seed 2 --overwrite")) == kSuccess);
  CHECK(fs::exists(folder / "cmp/mha-flash/model.safetensors"));
  CHECK_FALSE(fs::exists(folder / "cmp/mha-flash.json"));
}

TEST_CASE("output: what cannot be written is a failure of one line, for help as well") {
  FullBuffer full;
  const TemporaryFolder folder;
  const std::vector<std::vector<std::string>> calls = {
      tiny_training(folder / "run"), {"--help"}, {"--version"}, {"train", "--help"}};
  for (const auto& arguments : calls) {
    std::vector<const char*> argv = {"tilegrad"};
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::ostream out(&full);
    std::ostringstream err;
    const int code = run(static_cast<int>(argv.size()), argv.data(), {.out = out, .err = err});
    CHECK(code == kFailure);
    CHECK(err.str().find("tilegrad: the output cannot be written") != std::string::npos);
  }
  CHECK(fs::exists(folder / "run/model.safetensors"));
  CHECK(shell("--version >/dev/full 2>/dev/null") == kFailure);
  CHECK(shell("bench --q-len 16 --kv-len 16 --d 8 --json >/dev/full 2>/dev/null") == kFailure);
}

TEST_CASE("output: closed standard streams let nothing land in the files of a run") {
  const TemporaryFolder folder;
  const std::string options =
      "train --task sort --layers 1 --width 12 --batch 2 --steps 6 --eval-every 1 --stop-after 3 --out ";
  int number = 0;
  for (const char* closed : {">&-", "2>&-", "<&- >&- 2>&-"}) {
    const std::string run = folder / std::to_string(++number);
    CAPTURE(closed);
    CHECK(shell(options + run + " " + closed + (number == 2 ? " >/dev/null" : "")) == kSuccess);
    CHECK(timeless_metrics(run).size() == 6);  // which throws if a line is not JSON
    CHECK(shell("train --quiet --no-summary --resume " + run) == kSuccess);
  }
}

TEST_CASE("output: a loss that is not finite ends the run with its step, and the step before is saved") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  check_error(
      run_program(tiny_training(run, {"--lr", "1e30", "--clip", "0", "--warmup", "0", "--log-level", "off"})),
      kFailure, "tilegrad: step 2: ");
  CHECK(nn::load_safetensors(run + "/state.safetensors").metadata.at("step") == "1");
}

TEST_CASE("output: weights that are not finite are not saved") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  check_error(run_program(tiny_training(run, {"--lr", "1e300", "--clip", "0", "--warmup", "0", "--stop-after",
                                              "1", "--log-level", "off"})),
              kFailure, "step 1: the weights are no longer finite; they are not saved");
  CHECK_FALSE(fs::exists(run + "/state.safetensors"));
}

TEST_CASE("output: links in a circle and misspelled words are errors of one line in plain words") {
  const TemporaryFolder folder;
  fs::create_symlink(folder / "a", folder / "b");
  fs::create_symlink(folder / "b", folder / "a");
  const std::string loop = "Too many levels of symbolic links";
  check_error({"report", folder / "a"}, kFailure, loop);
  check_error({"sample", folder / "a"}, kFailure, loop);
  check_error({"train", "--text", folder / "a", "--out", folder / "run"}, kFailure, loop);
  check_error(tiny_training(folder / "a"), kFailure, loop);
  check_error({"traim"}, kWrongCommandLine, "`traim` is not a command; did you mean `train`?");
  check_error({"lab", "flsh"}, kWrongCommandLine, "`flsh` is not a command; did you mean `flash`?");
  check_error({"lab", "flahs"}, kWrongCommandLine, "`flahs` is not a command; did you mean `flash`?");
  check_error({"bench", "--q_len", "3"}, kWrongCommandLine, "did you mean `--q-len`?");
  check_error({"train", "--kv_heads=3"}, kWrongCommandLine, "did you mean `--kv-heads`?");
  check_error({"juggle"}, kWrongCommandLine, "`juggle` is not a command (");
  CHECK(run_program({"--version"}).out.starts_with("tilegrad 0."));
  CHECK(run_program({"lab", "flash", "--help"}).out.find("2147483648") == std::string::npos);
}
