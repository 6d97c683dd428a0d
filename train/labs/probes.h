#pragma once

#include "tilegrad/train/labs/lab.h"

/// The measurements that labs start in processes of their own. Each stands in the file of its lab.
namespace tilegrad::train {

// checkpoint.cpp
Json probe_stages(const Json& task);
Json probe_schedule(const Json& task);

// flash.cpp
Json probe_attention(const Json& task);
Json probe_accuracy(const Json& task);
Json probe_machine(const Json& task);

// heads.cpp
Json probe_training(const Json& task);
Json probe_decoding(const Json& task);
Json probe_sharing(const Json& task);
Json probe_learning(const Json& task);
Json probe_conversion(const Json& task);

}  // namespace tilegrad::train
