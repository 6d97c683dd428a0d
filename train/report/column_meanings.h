#pragma once

#include <string_view>
#include <vector>

#include "tilegrad/train/report/table.h"

namespace tilegrad::train {

/// One sentence about a column of results, by its heading; empty if its heading says it all.
std::string_view meaning_of(std::string_view heading);

/// A folded table of what the columns of these tables mean, in their order.
Table column_meanings(const std::vector<Table>& tables);

}  // namespace tilegrad::train
