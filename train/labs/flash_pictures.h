#pragma once

#include <string>
#include <vector>

#include "tilegrad/train/labs/flash_measure.h"
#include "tilegrad/train/report/page.h"

/// The pictures of `tilegrad lab flash`.
namespace tilegrad::train {

/// A measured pass: how many operations it does for each byte that it moves, by the models of attention_cost.h, and how
/// many in a second.
struct RooflinePoint {
  std::string name;
  double flops_per_byte, gflops;
};

/// Points under the roof of this machine (S. Williams et al., "Roofline", 2009): a program that does I operations for each
/// byte cannot do more than min(peak, I · bandwidth) operations a second.
Chart roofline(double peak_gflops, double gbytes_per_s, const std::vector<RooflinePoint>& points);

/// How flash walks over the tiles of the first head, forward and backward: what it skips, cuts and computes whole, and
/// which of `threads` threads comes to it when.
std::vector<Grid> walk_pictures(const FlashTask& task, int threads);

}  // namespace tilegrad::train
