#include "tilegrad/train/app/program.h"

#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "tilegrad/kernels/gemm.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/app/command.h"

namespace tilegrad::train {

namespace {

// Log lines go to console.err, so that results can be piped, and only as long as it is sure to be there.
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

int wrong_command_line(const CLI::App& program, const CLI::ParseError& error, const Console& console) {
  if (error.get_exit_code() == 0) return program.exit(error, console.out, console.err);  // --help
  const CLI::App* chosen = &program;
  std::string path;
  while (!chosen->get_subcommands().empty()) {
    chosen = chosen->get_subcommands()[0];
    path += chosen->get_name() + " ";
  }
  const auto unknown = program.remaining(/*recurse=*/true);
  std::string message = error.what();
  if (chosen->get_require_subcommand_min() > 0 && !unknown.empty()) {
    message = fmt::format("`{}` is not a command", unknown[0]);
  }
  return report(console, fmt::format("{} (tilegrad {}--help lists what can be said)", message, path),
                kWrongCommandLine);
}

int run_command(const std::vector<Command>& commands, const Console& console) {
  for (const Command& command : commands) {
    if (command.app->parsed()) return command.run(console);
  }
  return kWrongCommandLine;
}

}  // namespace

int run(int argc, const char* const* argv, const Console& console) {
  CLI::App program("tilegrad: train small transformers, and compare how their attention is computed",
                   "tilegrad");
  program.require_subcommand(1);
  program.fallthrough();
  std::string log_level = "info";
  program.add_option("--log-level", log_level, "debug, info, warn, error or off")
      ->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}));
  const std::vector<Command> commands = {
      add_train_command(program), add_compare_command(program),   add_report_command(program),
      add_lab_command(program),   add_sample_command(program),    add_check_command(program),
      add_bench_command(program), add_attention_command(program),
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
  } catch (const std::exception& error) {
    return report(console, error.what(), kFailure);
  }
}

}  // namespace tilegrad::train
