#include <memory>

#include "tilegrad/base/file.h"
#include "tilegrad/train/app/command.h"
#include "tilegrad/train/app/run_options.h"
#include "tilegrad/train/app/train_run.h"
#include "tilegrad/train/run/run_folder.h"

namespace tilegrad::train {

namespace {

struct TrainOptions {
  explicit TrainOptions(CLI::App& app) : run(app) {
    auto* resume_option = app.add_option("--resume", resume, "go on with the run in this folder");
    app.add_option("--repeat", repeat, "train again what this config.json says; --out decides where")
        ->excludes(resume_option);
    app.add_option("--stop-after", control.stop_after, "stop and save after this many steps, as Ctrl-C would")
        ->check(CLI::NonNegativeNumber);
    app.add_flag("--quiet", control.quiet, "show no progress");
    app.add_flag("--json", control.json, "show progress and summary as JSON, an object a line");
    app.add_flag("--profile", control.profile,
                 "tell what each op costs in steps 2 to 4; profile.json opens in Perfetto");
    app.add_option("--label", control.label, "stands before each line of progress");
    app.add_flag("!--no-summary", control.summary, "print no summary at the end");
  }

  RunConfig resolve() {
    if (!resume.empty()) {
      RunConfig saved = RunFolder(resume).read_config();
      saved.out = resume;  // the folder may have been moved
      return run.resolve_resumed(saved);
    }
    if (!repeat.empty()) return resolve_repeated();
    return run.resolve();
  }

  RunConfig resolve_repeated() {
    RunConfig config = config_from_json(read_file(repeat), repeat);
    config.out = run.given("out") ? run.resolve().out : config.out;
    return config;
  }

  RunOptions run;
  RunControl control;
  std::string resume, repeat;
};

}  // namespace

Command add_train_command(CLI::App& program) {
  CLI::App* app = program.add_subcommand("train", "train one model");
  const auto options = std::make_shared<TrainOptions>(*app);
  return {app, [options](const Console& console) {
            RunControl control = options->control;
            control.resume = !options->resume.empty();
            return run_training(options->resolve(), control, console);
          }};
}

}  // namespace tilegrad::train
