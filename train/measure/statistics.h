#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace tilegrad::train {

/// A median, and the quartiles around it.
struct Quartiles {
  double first = 0, median = 0, third = 0;
};

/// Each is one of the values, of two equally good ones the upper; zeros if there is none.
Quartiles quartiles(std::vector<double> values);

double median(std::vector<double> values);

enum class Verdict { less, greater, not_distinguishable };

/// Whether a is less or greater than b, from repetitions that were interleaved, so that a[i] and b[i] ran
/// under the same load: the two-sided sign test at 5 %. Ties and unpaired values are left out; fewer than six
/// pairs decide nothing.
Verdict sign_test(std::span<const double> a, std::span<const double> b);

/// The index from which on all are won; nothing if the last one is lost.
std::optional<std::size_t> first_lasting_win(const std::vector<bool>& won);

}  // namespace tilegrad::train
