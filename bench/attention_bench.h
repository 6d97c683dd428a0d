#pragma once

namespace tilegrad::bench {

/// Registers every row of the table in README.md, forward and backward.
void add_attention_benchmarks();

}  // namespace tilegrad::bench
