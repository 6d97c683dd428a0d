#pragma once

#include <string>
#include <vector>

#include "tilegrad/train/labs/columns.h"
#include "tilegrad/train/labs/heads_measure.h"

/// `tilegrad lab heads --convert`: what becomes of a trained MHA whose key/value heads are pooled.
namespace tilegrad::train {

/// MHA turned into one kind.
struct ConversionRow {
  std::string kind = {};  ///< gqa or mqa
  Conversion conversion = {};
};

std::vector<Column<ConversionRow>> conversion_columns();

/// How the loss changes with each conversion, to follow what the lab has found.
std::string finding_of_conversions(const std::vector<ConversionRow>& rows);

}  // namespace tilegrad::train
