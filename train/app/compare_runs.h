#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/train/report/console.h"
#include "tilegrad/train/run/run_config.h"

namespace tilegrad::train {

/// One way of computing attention, by name: mha, gqa or mqa; naive, flash or mine (flash unless it is said);
/// and with `-ckpt` with every block checkpointed, with `-ckpt-mine` by a learner: "mha-naive", "mha-flash-ckpt",
/// "gqa".
struct Variant {
  std::string name;
  RunConfig config;
};

struct ComparisonOptions {
  std::vector<std::string> variants = {"mha-naive", "mha-flash", "mha-flash-ckpt", "gqa", "mqa"};
  Index gqa_heads = 0;     ///< key/value heads of gqa; 0: half of the heads, or what comes closest
  bool keep_all = false;   ///< a variant that makes no sense for the model is an error, not left out
  bool overwrite = false;  ///< replace the results in base.out
  bool quiet = false;      ///< show no progress
  bool json = false;       ///< progress and results are JSON objects, one a line
  bool profile = false;    ///< report what ops cost, in a few of the first steps of each variant
  std::filesystem::path program = "/proc/self/exe";  ///< `tilegrad`, which runs each variant
};

/// The runs to compare: `base` with what the variant says, in a folder of its own inside base.out.
/// Throws on a name that is not a variant.
std::vector<Variant> make_variants(const RunConfig& base, const ComparisonOptions& options);

/// Trains every variant in a process of its own, prints the table, and writes curves.csv and compare.json
/// into base.out. After Ctrl-C the table shows what there is. Returns kFailure if a variant failed.
int run_comparison(const RunConfig& base, const ComparisonOptions& options, const Console& console);

}  // namespace tilegrad::train
