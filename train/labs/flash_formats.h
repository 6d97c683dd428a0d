#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/train/labs/columns.h"
#include "tilegrad/train/labs/flash_measure.h"
#include "tilegrad/train/labs/lab.h"
#include "tilegrad/train/labs/publish.h"
#include "tilegrad/train/report/console.h"
#include "tilegrad/train/report/page.h"

/// Number formats side by side: what storing q, k, v, out and their gradients in each costs flash attention in digits, and
/// what it saves.
namespace tilegrad::train {

/// The types of a list such as "f32,bf16,f16". Throws Error for any other name, and for one that stands twice. Only this
/// lab stores in bf16 and f16.
std::vector<Dtype> formats_of(std::string_view list);

/// Flash in one format.
struct FormatRow {
  Dtype dtype = Dtype::f32;
  Index qkv_bytes = 0, peak = 0;  ///< of q, k and v as they are stored; tracked, in a forward pass
  Timing forward = {};
  FormatErrors errors = {};
};

/// Runs the task with each of these types in place of its own, timed in interleaved rounds. Throws Error if one does not
/// fit into memory.
std::vector<FormatRow> measure_formats(const FlashTask& task, const std::vector<Dtype>& formats,
                                       Index repeats, const LabOptions& options, const Console& console);

std::vector<Column<FormatRow>> format_columns();

/// The largest relative error of each format, and how often one overflowed; a part of a finding.
std::string format_finding(const std::vector<FormatRow>& rows);

/// How many decimal digits of out and of the gradients are right in each format.
Chart format_chart(const std::vector<FormatRow>& rows);

}  // namespace tilegrad::train
