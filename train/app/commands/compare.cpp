#include <memory>

#include "tilegrad/train/app/command.h"
#include "tilegrad/train/app/compare_runs.h"
#include "tilegrad/train/app/output_folder.h"
#include "tilegrad/train/app/run_options.h"

namespace tilegrad::train {

namespace {

struct CompareOptions {
  explicit CompareOptions(CLI::App& app) : run(app) {
    variants = app.add_option("--variants", comparison.variants,
                              "what to compare: mha, gqa or mqa, with -naive, -flash or -mine, with -ckpt or "
                              "-ckpt-mine; those of a learner need --mine")
                   ->delimiter(',')
                   ->capture_default_str();
    app.add_option("--gqa-heads", comparison.gqa_heads, "key/value heads of gqa; half of the heads if 0")
        ->check(CLI::NonNegativeNumber);
    app.add_flag("--overwrite", comparison.overwrite, "replace the results in the folder");
    app.add_flag("--quiet", comparison.quiet, "show no progress");
    app.add_flag("--profile", comparison.profile,
                 "show what each op costs in steps 2 to 4; every variant's profile.json opens in Perfetto");
    app.add_flag("--json", comparison.json, "show progress and results as JSON, an object a line");
  }

  RunConfig resolve() {
    RunConfig config = run.resolve();
    for (const std::string_view setting : {"attention", "kv-heads", "mine-checkpoint"}) {
      check(!run.on_command_line(setting), "compare: --{} is what --variants decides", setting);
    }
    if (!run.given("kv-init")) config.kv_init = KvInit::pooled;
    if (!run.given("out")) config.out = "runs/compare-" + std::string(config.data_name());
    if (!run.on_command_line("out") && !comparison.overwrite) config.out = free_folder(config.out).string();
    comparison.keep_all = variants->count() > 0;
    return config;
  }

  RunOptions run;
  ComparisonOptions comparison;
  CLI::Option* variants = nullptr;
};

}  // namespace

Command add_compare_command(CLI::App& program) {
  CLI::App* app = program.add_subcommand("compare", "train the same model with several kinds of attention");
  const auto options = std::make_shared<CompareOptions>(*app);
  return {app, [options](const Console& console) {
            const RunConfig config = options->resolve();
            return run_comparison(config, options->comparison, console);
          }};
}

}  // namespace tilegrad::train
