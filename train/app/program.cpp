#include "tilegrad/train/app/program.h"

#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>
#include <new>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tilegrad/kernels/gemm.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/app/command.h"
#include "tilegrad/train/measure/environment.h"

namespace tilegrad::train {

namespace {

// Log lines go to console.err, so that results can be piped, and only as long as console.err is sure to exist.
class LogScope {
 public:
  LogScope(const Console& console, const std::string& level) : outer_(spdlog::default_logger()) {
    auto sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(console.err, /*force_flush=*/true);
    auto logger = std::make_shared<spdlog::logger>("tilegrad", std::move(sink));
    logger->set_pattern("%l: %v");
    logger->set_level(spdlog::level::from_str(level));
    spdlog::set_default_logger(std::move(logger));
  }
  ~LogScope() { spdlog::set_default_logger(outer_); }
  LogScope(const LogScope&) = delete;
  LogScope& operator=(const LogScope&) = delete;

 private:
  std::shared_ptr<spdlog::logger> outer_;
};

int report(const Console& console, std::string_view message, ExitCode code) {
  console.err << "tilegrad: " << message << std::endl;
  return code;
}

// How many letters have to be added, removed, replaced or swapped with their neighbour to make b of a (optimal string
// alignment).
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before, row(b.size() + 1), next(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 0; i < a.size(); ++i) {
    next[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      next[j + 1] = std::min({row[j] + (a[i] != b[j]), row[j + 1] + 1, next[j] + 1});
      const bool swapped = i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j];
      if (swapped) next[j + 1] = std::min(next[j + 1], before[j - 1] + 1);
    }
    before = std::exchange(row, next);
  }
  return row.back();
}

// What may follow this part of the command line: its commands and options.
std::vector<std::string> words_of(const CLI::App& app) {
  std::vector<std::string> words;
  const auto visible = [](const auto* entry) { return !entry->get_group().empty(); };
  for (const CLI::App* command : app.get_subcommands(visible)) words.push_back(command->get_name());
  for (const CLI::Option* option : app.get_options(visible)) {
    for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
  }
  return words;
}

// "; did you mean `train`?", or nothing if no word is similar.
std::string suggestion(const CLI::App& app, const std::string& argument) {
  const std::string unknown = argument.substr(0, argument.find('='));
  std::string best;
  std::size_t least = 1 + std::min<std::size_t>(2, unknown.size() / 3);
  for (const std::string& word : words_of(app)) {
    const std::size_t distance = edit_distance(unknown, word);
    if (distance >= least) continue;
    least = distance;
    best = word;
  }
  return best.empty() ? "" : fmt::format("; did you mean `{}`?", best);
}

int wrong_command_line(const CLI::App& program, const CLI::ParseError& error, const Console& console) {
  if (error.get_exit_code() == 0) return program.exit(error, console.out, console.err);  // --help, --version
  const CLI::App* chosen = &program;
  std::string path;
  while (!chosen->get_subcommands().empty()) {
    chosen = chosen->get_subcommands()[0];
    path += chosen->get_name() + " ";
  }
  const auto unknown = program.remaining(/*recurse=*/true);
  std::string message = error.what();
  if (!unknown.empty()) {
    const bool command_is_missing = chosen->get_require_subcommand_min() > 0 && !unknown[0].starts_with("-");
    message = fmt::format("`{}` is not {}{}", unknown[0], command_is_missing ? "a command" : "an option here",
                          suggestion(*chosen, unknown[0]));
  }
  return report(console, fmt::format("{} (tilegrad {}--help lists what there is)", message, path),
                kWrongCommandLine);
}

// CLI11's help, without ranges that exist only so that products do not overflow.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_option_opts(const CLI::Option* option) const override {
    constexpr std::string_view kNoRealRange = " in [1 - 2147483648]";
    std::string text = CLI::Formatter::make_option_opts(option);
    const auto range = text.find(kNoRealRange);
    return range == std::string::npos ? text : text.erase(range, kNoRealRange.size());
  }
};

int run_command(const std::vector<Command>& commands, const Console& console) {
  for (const Command& command : commands) {
    if (command.app->parsed()) return command.run(console);
  }
  return kWrongCommandLine;
}

int run_program(int argc, const char* const* argv, const Console& console) {
  CLI::App program("tilegrad: train small transformers, and compare how their attention is computed",
                   "tilegrad");
  program.formatter(std::make_shared<HelpFormatter>());
  program.require_subcommand(1);
  program.fallthrough();
  program.set_version_flag("--version", [] { return "tilegrad " + current_environment("").tilegrad; });
  std::string log_level = "info";
  program.add_option("--log-level", log_level, "debug, info, warn, error or off")
      ->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}));
  const std::vector<Command> commands = {
      add_train_command(program),     add_compare_command(program), add_report_command(program),
      add_lab_command(program),       add_sample_command(program),  add_evaluate_command(program),
      add_look_command(program),      add_check_command(program),   add_bench_command(program),
      add_attention_command(program),
  };
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return wrong_command_line(program, error, console);
  }
  try {
    const LogScope log(console, log_level);
    spdlog::debug("{} threads, OpenBLAS core {}", kernels::threads(), kernels::blas_core());
    return run_command(commands, console);
  } catch (const std::bad_alloc&) {
    return report(console, "out of memory", kFailure);
  } catch (const std::filesystem::filesystem_error& error) {
    return report(console, fmt::format("{}: {}", error.path1().string(), error.code().message()), kFailure);
  } catch (const std::exception& error) {
    return report(console, error.what(), kFailure);
  }
}

}  // namespace

int run(int argc, const char* const* argv, const Console& console) {
  const int code = run_program(argc, argv, console);
  errno = 0;
  console.out.flush();
  const int error = errno;
  if (console.out.good() || code == kFailure || code == kWrongCommandLine) return code;
  return report(console,
                fmt::format("the output cannot be written{}{}", error == 0 ? "" : ": ",
                            error == 0 ? "" : std::strerror(error)),
                kFailure);
}

}  // namespace tilegrad::train
