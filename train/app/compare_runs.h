#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/train/report/console.h"
#include "tilegrad/train/run/run_config.h"

namespace tilegrad::train {

/// A run of a comparison, by name. A variant is mha, gqa or mqa, then naive, flash or mine (flash if not given), then
/// optionally `ckpt` (every block is checkpointed) or `ckpt-mine` (by a learner's code): "mha-naive", "mha-flash-ckpt",
/// "gqa". In a grid, what was varied comes after it: "mqa,lr=0.001,seed=2".
struct Variant {
  std::string name;
  RunConfig config;
};

struct ComparisonOptions {
  /// Empty: the attention that each config of the grid names.
  std::vector<std::string> variants = {"mha-naive", "mha-flash", "mha-flash-ckpt", "gqa", "mqa"};
  Index gqa_heads = 0;             ///< key/value heads of gqa; 0: half of the heads, or what comes closest
  bool keep_all = false;           ///< an impossible variant is an error; otherwise it is left out
  bool overwrite = false;          ///< replace the results in base.out
  bool quiet = false;              ///< show no progress
  Index jobs = 1;                  ///< runs at the same time
  std::vector<Variant> grid = {};  ///< what is varied; empty: the base alone. Each goes with every variant
  std::string grid_options = {};   ///< those of the command line that make the grid
  bool json = false;               ///< progress and results are JSON objects, one a line
  bool profile = false;            ///< report what ops cost, in a few of the first steps of each variant
  std::filesystem::path program = "/proc/self/exe";  ///< `tilegrad`, which runs each variant
};

/// The runs to compare: every config of the grid with what every variant says.
/// Throws on a name that is not a variant, and if two runs have the same name.
std::vector<Variant> make_variants(const RunConfig& base, const ComparisonOptions& options);

/// Trains every variant in a process of its own, in a folder of its own inside base.out, prints the table, and
/// writes curves.csv, compare.json and report.html into base.out. Runs that are there already, with the same
/// settings, are kept if they are finished, and continued if not. After Ctrl-C the table shows what there is.
/// Throws if the folder holds anything else, unless it may be replaced; and at the end if a run failed.
int run_comparison(const RunConfig& base, const ComparisonOptions& options, const Console& console);

/// A folder for a comparison that named none: `base.out` or the first one after it, base.out-2 and so on, that
/// holds these runs unfinished or nothing.
std::string comparison_folder(const RunConfig& base, const ComparisonOptions& options);

}  // namespace tilegrad::train
