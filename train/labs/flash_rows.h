#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/train/labs/columns.h"
#include "tilegrad/train/labs/flash_measure.h"
#include "tilegrad/train/labs/publish.h"
#include "tilegrad/train/report/page.h"
#include "tilegrad/train/run/names.h"

/// What `lab flash` says of one pass of one kernel at one length, and of the machine it is compared with.
namespace tilegrad::train {

/// The name of a learner's code, which stands where others have the name of a kernel.
inline constexpr std::string_view kMine = "mine";

/// What the machine can do, as measured.
struct Machine {
  double gflops = 0;           ///< FMA, in the compute type
  double gbytes_per_s = 0;     ///< from memory
  Index l2 = 0;                ///< bytes
  std::string processor = {};  ///< its name
};
/// The best of all tries; the peak also counts what earlier labs on this machine have measured (best_peak.h).
Machine machine_of(const MachineSpeeds& speeds, Dtype dtype);
/// The machine in one line.
std::string describe(const Machine& machine, Dtype dtype);

/// One pass of one kernel at one length.
struct FlashRow {
  Index seq = 0;  ///< tokens
  AttentionKernel kernel = AttentionKernel::flash;
  bool mine = false;      ///< a learner's code, which computes what flash computes
  bool backward = false;  ///< forward and backward, or forward alone
  Timing time = {};
  Index peak = 0, peak_rss = 0;      ///< bytes
  double moved = 0, operations = 0;  ///< bytes and operations, by the formulas of attention_cost.h

  std::string_view name() const { return mine ? kMine : name_of(kernel); }
  std::string_view pass() const { return backward ? "forward + backward" : "forward"; }
  double gflops() const { return operations / time.ms / 1e6; }
  double gbytes_per_s() const { return moved / time.ms / 1e6; }
};

/// The rows of forward, and of forward and backward; `l2` is the size of the cache in bytes.
std::array<FlashRow, 2> rows_of(const FlashTask& task, const AttentionCosts& costs, Index l2, int rounds);

/// The columns of these rows; two of them are percentages of what the machine can do.
std::vector<Column<FlashRow>> columns_of(const Machine& machine);

/// The columns of differences and errors.
std::vector<Column<TensorErrors>> accuracy_columns();

/// The roofline of the machine with two points for each pair of rows_of(), forward and backward. The time of backward is
/// that of both passes less that of forward, round by round; where noise leaves nothing of it, there is no point.
Chart roofline_of(const Machine& machine, const std::vector<FlashRow>& rows);

}  // namespace tilegrad::train
