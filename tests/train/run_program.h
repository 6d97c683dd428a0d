#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/temporary_folder.h"
#include "tests/train/tiny_runs.h"
#include "tilegrad/base/file.h"
#include "tilegrad/train/app/program.h"

namespace tilegrad::train {

using test::TemporaryFolder;

/// What a call of the program left behind.
struct Output {
  int code = 0;
  std::string out, err;
};

/// `tilegrad <arguments>` in this process.
inline Output run_program(const std::vector<std::string>& arguments) {
  std::vector<const char*> argv = {"tilegrad"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  std::ostringstream out, err;
  const int code = run(static_cast<int>(argv.size()), argv.data(), {.out = out, .err = err});
  return {code, out.str(), err.str()};
}

/// `tilegrad`, for commands that start processes of their own.
inline std::filesystem::path program_file() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / "tilegrad";
}

/// The program did what it was asked for; otherwise the test ends.
inline void check_success(const Output& output) {
  CAPTURE(output.err);
  REQUIRE(output.code == kSuccess);
}

/// The program ended with this code and said one line, which contains `line`.
inline void check_error(const Output& output, int code, const std::string& line) {
  CAPTURE(output.err);
  CAPTURE(line);
  CHECK(output.code == code);
  CHECK(output.err.starts_with("tilegrad: "));
  CHECK(output.err.find(line) != std::string::npos);
  CHECK(std::count(output.err.begin(), output.err.end(), '\n') == 1);
}

/// So does `tilegrad <arguments>`.
inline void check_error(const std::vector<std::string>& arguments, int code, const std::string& line) {
  check_error(run_program(arguments), code, line);
}

/// Arguments that train a tiny model, with dropout so that random numbers matter.
inline std::vector<std::string> tiny_training(const std::string& out, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {
      "train", "--task",  "sort", "--layers",  "2",   "--heads",      "2", "--width", "16", "--batch",
      "8",     "--steps", "12",   "--dropout", "0.1", "--eval-every", "5", "--out",   out,  "--quiet"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

/// The JSON that the page of a report reads.
inline nlohmann::json data_of(const std::string& page) {
  const std::string opening = "<script type=\"application/json\" id=\"report\">";
  const auto begin = page.find(opening) + opening.size();
  return nlohmann::json::parse(page.substr(begin, page.find("</script>", begin) - begin));
}

/// metrics.jsonl without what depends on the clock, one object a line.
inline std::vector<nlohmann::json> timeless_metrics(const std::string& folder) {
  std::istringstream in(read_file(folder + "/metrics.jsonl"));
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) {
    lines.push_back(nlohmann::json::parse(line));
    lines.back().erase("ms");
    lines.back().erase("tokens_per_s");
  }
  return lines;
}

}  // namespace tilegrad::train
