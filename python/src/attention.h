#pragma once

#include <nanobind/nanobind.h>

namespace tilegrad::python {

/// Adds AttentionOptions, attention and attention_backward.
void add_attention(nanobind::module_& module);

}  // namespace tilegrad::python
