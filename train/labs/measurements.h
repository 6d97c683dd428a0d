#pragma once

#include <functional>
#include <map>
#include <string>

#include "tilegrad/train/labs/child.h"

namespace tilegrad::train {

/// A measurement in a child: from the arguments of its task to its result.
using Measurement = std::function<Json(const Json& arguments, const CallTimer& timer)>;

/// The list of them, by name.
const std::map<std::string, Measurement>& measurements();

}  // namespace tilegrad::train
