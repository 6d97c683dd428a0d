#pragma once

#include <array>
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
/// under the same load: the two-sided sign test at `level`. Ties and unpaired values are left out; at 5 % fewer than six
/// pairs decide nothing.
Verdict sign_test(std::span<const double> a, std::span<const double> b, double level = 0.05);

/// The same for a comparison that was looked at after looks[0], looks[1], ... pairs, to stop as soon as it was decided;
/// at most three looks. Each look is a chance of a false finding (P. Armitage, C. K. McPherson, B. C. Rowe, "Repeated
/// significance tests on accumulating data", 1969), so each has a share of the level, and the shares add up to 5 %: then
/// so do, at most, the chances (Bonferroni). The first share is such that six pairs still decide if all agree. The
/// verdict is that of the first look that decides, whatever pairs came later.
Verdict sequential_sign_test(std::span<const double> a, std::span<const double> b,
                             std::span<const std::size_t> looks);

/// After how many rounds a lab looks: more of them are measured only while a comparison is undecided. With these and the
/// shares 6 of 6, 11 of 12 and 19 of 24 are decisive, as they are in 3.9 % of all comparisons of equals.
inline constexpr std::array<std::size_t, 3> kRoundLooks = {6, 12, 24};

/// The index from which on all are won; nothing if the last one is lost.
std::optional<std::size_t> first_lasting_win(const std::vector<bool>& won);

}  // namespace tilegrad::train
