#include <spdlog/spdlog.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "tilegrad/base/file.h"
#include "tilegrad/base/json.h"
#include "tilegrad/train/app/command.h"
#include "tilegrad/train/report/comparison.h"
#include "tilegrad/train/report/event_file.h"
#include "tilegrad/train/report/png.h"
#include "tilegrad/train/report/run_page.h"
#include "tilegrad/train/report/svg.h"

namespace tilegrad::train {

namespace {

struct ReportOptions {
  explicit ReportOptions(CLI::App& app) {
    app.add_option("folders,--folders", folders, "folders of runs, or of compare with its variants")
        ->required();
    app.add_option("--out", out, "page to write")->capture_default_str();
    app.add_option("--csv", csv, "also write the results to this CSV file, one line per run");
    app.add_option("--json", json, "also write the results to this file, in the form of compare.json");
    app.add_option("--curves", curves, "also write the loss of every step to this CSV file");
    app.add_option("--svg", svg, "also write every chart as a picture into this folder");
    app.add_option("--png", png, "the same as PNG, which takes rsvg-convert (Debian: librsvg2-bin)");
    app.add_option("--tensorboard", events, "also write event files for TensorBoard into this folder");
  }

  std::vector<std::filesystem::path> folders;
  std::string out = "report.html", csv, json, curves, svg, png, events;
};

// Each only if it was asked for.
void write_exports(const ReportOptions& options, const std::vector<LoadedRun>& runs, const Report& page,
                   const Console& console) {
  const auto say = [&](std::string_view what, const std::string& where) {
    console.out << fmt::format("{}: {}\n", what, where);
  };
  const auto write = [&](std::string_view what, const std::string& file, const auto& content) {
    if (file.empty()) return;
    write_file(file, content());
    say(what, file);
  };
  write("csv", options.csv, [&] { return results_csv(runs); });
  write("json", options.json, [&] { return json_text(results_json(runs), 2) + "\n"; });
  write("curves", options.curves, [&] { return curves_csv(runs); });
  if (!options.svg.empty()) {
    for (const auto& file : write_svgs(options.svg, page.charts)) say("svg", file.string());
  }
  if (!options.png.empty()) {
    for (const auto& file : write_pngs(options.png, page.charts)) say("png", file.string());
  }
  if (!options.events.empty()) {
    export_events(options.events, runs);
    say("tensorboard", options.events);
  }
}

int report(const ReportOptions& options, const Console& console) {
  if (!options.png.empty()) png_converter();  // complains before anything is written
  const LoadedRuns all = load_runs(options.folders);
  const Report page = run_page(all);
  for (const std::string& warning : page.warnings) spdlog::warn("{}", warning);
  write_report(options.out, page);
  console.out << fmt::format("{}\nreport: {}\n", page.finding, options.out);
  write_exports(options, all.runs, page, console);
  console.out << std::flush;
  return kSuccess;
}

}  // namespace

Command add_report_command(CLI::App& program) {
  CLI::App* app = program.add_subcommand("report", "show runs side by side on one page");
  const auto options = std::make_shared<ReportOptions>(*app);
  return {app, [options](const Console& console) { return report(*options, console); }};
}

}  // namespace tilegrad::train
