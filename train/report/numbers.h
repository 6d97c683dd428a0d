#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/train/measure/spread.h"
#include "tilegrad/train/run/evaluation.h"

/// How figures are written for people, wherever they stand.
namespace tilegrad::train {

/// A share as a percentage: "97.3 %". What is not all or nothing never looks like it: .9999 is "99.9 %", and .0001
/// is "0.1 %".
std::string format_percent(double share);

/// "1.771 ± 0.012": mean and standard deviation with the digits that the deviation, of which two count, leaves
/// meaningful, at most `decimals`. A single value stands alone, and "-" for none.
std::string format_spread(const Spread& spread, int decimals = 4);

/// The same for shares: "97.3 ± 0.4 %".
std::string format_percent(const Spread& spread);

/// "1.7707", and for a text "1.7707 nats (2.555 bits per byte)".
std::string describe_loss(double nats, bool is_text);

/// The first three names, and how many more there are: "a, b, c and 4 more".
std::string few_of(const std::vector<std::string>& names, std::string_view separator = ", ");

/// "97.3 % of the answers, 81.0 % of the sequences"; for a text, no sequence of which is ever right as a whole,
/// "35.5 % of the bytes".
std::string describe_accuracy(const Evaluation& evaluation, bool is_text);

}  // namespace tilegrad::train
