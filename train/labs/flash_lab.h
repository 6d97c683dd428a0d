#pragma once

#include <string>
#include <vector>

#include "tilegrad/autograd/dtype.h"
#include "tilegrad/kernels/attention/attention.h"
#include "tilegrad/train/labs/lab.h"
#include "tilegrad/train/report/console.h"

namespace tilegrad::train {

/// Naive against flash attention on random q, k, v.
struct FlashLab {
  Index batch = 1, heads = 4, seq = 1024, head_size = 64;
  bool causal = false;
  Dtype dtype = Dtype::f32;
  std::vector<Dtype> formats = {};      ///< to store tensors in, side by side; none: no such table
  double input_std = 1;                 ///< standard deviation of q, k, v and out's gradient, not of scores
  bool sweep = false;                   ///< also lengths from 64 on, until one meets a limit
  double time_limit = 1;                ///< of the sweep: seconds for one forward and backward
  Index memory_limit = Index{1} << 30;  ///< of the sweep: bytes
  Index repeats = 5;
  std::uint64_t seed = 1;
  std::string mine = {};         ///< folder of a course whose attention is measured too; "": none
  Index tile_q = 0, tile_k = 0;  ///< rows of queries and keys in a tile of flash; 0: it chooses
  bool tile_sweep = false;       ///< also many sizes of tiles, at length `seq`
  Index kv_seq = 0;              ///< keys; 0: as many as queries. Not with a sweep
  kernels::Window window = {};   ///< keys that a query sees on either side
};

/// Measures how far the two differ, their times and memory, and how near they come to what the machine can
/// do.
int run_flash_lab(const FlashLab& lab, const LabOptions& options, const Console& console);

}  // namespace tilegrad::train
