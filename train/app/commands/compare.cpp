#include <memory>

#include "tilegrad/train/app/command.h"
#include "tilegrad/train/app/compare_runs.h"
#include "tilegrad/train/app/grid.h"
#include "tilegrad/train/app/run_options.h"

namespace tilegrad::train {

namespace {

struct CompareOptions {
  explicit CompareOptions(CLI::App& app) : run(app) {
    variants = app.add_option("--variants", comparison.variants,
                              "what to compare: mha, gqa or mqa, then perhaps -naive, -flash or -mine, then "
                              "perhaps -ckpt or -ckpt-mine; code of a learner needs --mine")
                   ->delimiter(',')
                   ->capture_default_str();
    app.add_option("--gqa-heads", comparison.gqa_heads, "key/value heads of gqa; half of the heads if 0")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--vary", grid.vary,
                   "a setting and its values: lr=0.001,0.003; every combination of several --vary is trained")
        ->allow_extra_args(false);
    seeds = app.add_option("--seeds", grid.seeds, "train everything with each of these seeds: 1,2,3")
                ->delimiter(',');
    app.add_option("--jobs", comparison.jobs, "runs at the same time, each with its share of the processors")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
    app.add_flag("--overwrite", comparison.overwrite, "replace the results in the folder");
    app.add_flag("--quiet", comparison.quiet, "show no progress");
    app.add_flag("--profile", comparison.profile,
                 "show what each op costs in steps 2 to 4; every variant's profile.json opens in Perfetto");
    app.add_flag("--json", comparison.json, "show progress and results as JSON, one object per line");
  }

  // Settings that --variants decides cannot be given; without it, a grid has the attention that the settings name.
  RunConfig resolve_base(RunOptions& options) const {
    // In a grid, each of the runs decides what has an effect.
    RunConfig config = grid.empty() ? options.resolve() : options.resolve_any();
    if (comparison.variants.empty()) return config;
    for (const std::string_view setting : {"attention", "kv-heads", "mine-checkpoint"}) {
      check(!options.on_command_line(setting), "compare: --{} is what --variants decides", setting);
    }
    if (!options.given("kv-init")) config.kv_init = KvInit::pooled;
    return config;
  }

  RunConfig resolve(const CLI::App& app) {
    if (!grid.empty() && variants->count() == 0) comparison.variants.clear();
    check(seeds->count() == 0 || !run.on_command_line("seed"), "compare: --seed has no effect with --seeds");
    RunConfig config = resolve_base(run);
    if (!run.given("out")) config.out = "runs/compare-" + std::string(config.data_name());
    comparison.keep_all = variants->count() > 0;
    if (!grid.empty()) {
      comparison.grid = make_grid(app, grid, [this](RunOptions& options) { return resolve_base(options); });
      comparison.grid_options = to_string(grid);
    }
    if (!run.on_command_line("out") && !comparison.overwrite)
      config.out = comparison_folder(config, comparison);
    return config;
  }

  RunOptions run;
  ComparisonOptions comparison;
  GridOptions grid;
  CLI::Option *variants = nullptr, *seeds = nullptr;
};

}  // namespace

Command add_compare_command(CLI::App& program) {
  CLI::App* app = program.add_subcommand(
      "compare", "train the same model with several kinds of attention, settings or seeds");
  const auto options = std::make_shared<CompareOptions>(*app);
  return {app, [options, app](const Console& console) {
            const RunConfig config = options->resolve(*app);
            return run_comparison(config, options->comparison, console);
          }};
}

}  // namespace tilegrad::train
