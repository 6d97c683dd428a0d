#include <memory>

#include "tilegrad/base/file.h"
#include "tilegrad/train/app/command.h"
#include "tilegrad/train/app/output_folder.h"
#include "tilegrad/train/app/run_options.h"
#include "tilegrad/train/app/train_run.h"
#include "tilegrad/train/run/run_folder.h"

namespace tilegrad::train {

namespace {

struct TrainOptions {
  explicit TrainOptions(CLI::App& app) : run(app) {
    resume_option = app.add_option("--resume", resume, "continue the run in this folder");
    repeat_option =
        app.add_option("--repeat", repeat,
                       "train the run of this folder, or of this config.json, once more; only --out may "
                       "be given as well")
            ->excludes(resume_option);
    app.add_flag("--overwrite", control.overwrite,
                 "replace the run in the folder as soon as this one has saved")
        ->excludes(resume_option);
    app.add_option("--stop-after", control.stop_after, "stop and save after this many steps, as Ctrl-C would")
        ->check(CLI::NonNegativeNumber);
    app.add_flag("--quiet", control.quiet, "show no progress");
    app.add_flag("--json", control.json, "show progress and summary as JSON, one object per line");
    app.add_flag("--profile", control.profile,
                 "show what each op costs in steps 2 to 4; profile.json opens in Perfetto");
    app.add_flag("--tensorboard", control.tensorboard,
                 "write event files for TensorBoard into the run's folder");
    app.add_option("--label", control.label, "text in front of each line of progress");
    app.add_flag("!--no-summary", control.summary, "print no summary at the end");
  }

  RunConfig resolve() {
    control.resume = resume_option->count() > 0;
    if (control.resume) return resolve_resumed();
    RunConfig config = repeat_option->count() > 0 ? resolve_repeated() : run.resolve();
    // A folder that was not asked for by name is never one that is in use.
    if (!run.on_command_line("out") && !control.overwrite) config.out = free_folder(config.out).string();
    return config;
  }

  RunConfig resolve_resumed() {
    check(!resume.empty(), "resume: names no folder");
    RunConfig saved = RunFolder(resume).read_config();
    saved.out = resume;  // the folder may have been moved
    return run.resolve_resumed(saved);
  }

  RunConfig resolve_repeated() {
    check(!repeat.empty(), "repeat: names no run");
    std::error_code unknown;
    const bool is_folder = std::filesystem::is_directory(repeat, unknown);
    const auto file = is_folder ? RunFolder(repeat).config_file() : std::filesystem::path(repeat);
    const RunConfig saved = config_from_json(read_file(file), file.string());
    return run.resolve_repeated(saved, file.string());
  }

  RunOptions run;
  RunControl control;
  std::string resume, repeat;
  CLI::Option *resume_option = nullptr, *repeat_option = nullptr;
};

}  // namespace

Command add_train_command(CLI::App& program) {
  CLI::App* app = program.add_subcommand("train", "train one model");
  const auto options = std::make_shared<TrainOptions>(*app);
  return {app, [options](const Console& console) {
            const RunConfig config = options->resolve();
            return run_training(config, options->control, console);
          }};
}

}  // namespace tilegrad::train
