#pragma once

#include "tilegrad/train/report/loaded_run.h"
#include "tilegrad/train/report/page.h"

namespace tilegrad::train {

/// One run, or several side by side. What was damaged or missing in their folders becomes a warning on the
/// page.
Report run_page(const LoadedRuns& all);

}  // namespace tilegrad::train
