#pragma once

#include <nanobind/nanobind.h>

namespace tilegrad::python {

/// Adds the class Transformer, a model, and Codec, the tokens of a run.
void add_transformer(nanobind::module_& module);

}  // namespace tilegrad::python
