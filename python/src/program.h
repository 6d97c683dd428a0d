#pragma once

#include <nanobind/nanobind.h>

namespace tilegrad::python {

/// Adds run_program, which runs a command of the program `tilegrad` in this process, and settings, the list of what can be
/// decided about a run.
void add_program(nanobind::module_& module);

}  // namespace tilegrad::python
