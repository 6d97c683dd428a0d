#pragma once

#include <nanobind/nanobind.h>

namespace tilegrad::python {

/// Adds run_on_openmp, which hands all tasks to the threads of an OpenMP runtime that the process has loaded.
void add_openmp(nanobind::module_& module);

}  // namespace tilegrad::python
