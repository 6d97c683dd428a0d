#pragma once

#include <string>
#include <vector>

#include "tilegrad/train/labs/columns.h"
#include "tilegrad/train/labs/flash_measure.h"
#include "tilegrad/train/labs/lab.h"
#include "tilegrad/train/report/console.h"
#include "tilegrad/train/report/page.h"

/// `tilegrad lab flash --tile-sweep`: how long flash takes with tiles of many sizes.
namespace tilegrad::train {

/// One size of tiles, and the median times with it.
struct TileTime {
  Index tile_q = 0, tile_k = 0;  ///< 0 and 0: those that flash chooses
  double forward_ms = 0, step_ms = 0;
};

/// The sizes that are tried: powers of two from 16 to 512, as far as the sequence reaches; first what flash chooses.
std::vector<FlashTask> tile_tasks(FlashTask task);

/// Measures flash with each of them, interleaved.
std::vector<TileTime> measure_tiles(const FlashTask& task, Index repeats, const LabOptions& options,
                                    const Console& console);

/// Their numbers, unrounded.
OrderedJson tiles_json(const std::vector<TileTime>& times);

/// A heat map of the forward pass, and one of forward and backward.
std::vector<Grid> tile_maps(const std::vector<TileTime>& times);

/// Which tiles have the lowest median of forward and backward. Since the lowest of many medians is low by chance too, these
/// are measured again beside those that flash chooses, until a sign test decides.
std::string tile_finding(const FlashTask& task, const std::vector<TileTime>& times, Index repeats,
                         const LabOptions& options, const Console& console);

}  // namespace tilegrad::train
