#include <spdlog/spdlog.h>

#include <memory>

#include "tilegrad/train/app/command.h"
#include "tilegrad/train/report/run_page.h"

namespace tilegrad::train {

namespace {

struct ReportOptions {
  explicit ReportOptions(CLI::App& app) {
    app.add_option("folders,--folders", folders, "folders of runs, or of compare with its variants")
        ->required();
    app.add_option("--out", out, "file to write")->capture_default_str();
  }

  std::vector<std::filesystem::path> folders;
  std::string out = "report.html";
};

int report(const ReportOptions& options, const Console& console) {
  const Report page = run_page(load_runs(options.folders));
  for (const std::string& warning : page.warnings) spdlog::warn("{}", warning);
  write_report(options.out, page);
  console.out << fmt::format("{}\nreport: {}\n", page.finding, options.out) << std::flush;
  return kSuccess;
}

}  // namespace

Command add_report_command(CLI::App& program) {
  CLI::App* app = program.add_subcommand("report", "show runs side by side on one page");
  const auto options = std::make_shared<ReportOptions>(*app);
  return {app, [options](const Console& console) { return report(*options, console); }};
}

}  // namespace tilegrad::train
