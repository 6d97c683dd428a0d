#pragma once

#include "train/labs/lab.h"

/// The measurements that labs start in processes of their own. Each stands in the file of its lab.
namespace tilegrad::train {

Json probe_stages(const Json& task);
Json probe_schedule(const Json& task);

}  // namespace tilegrad::train
