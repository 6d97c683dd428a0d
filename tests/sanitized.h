#pragma once

namespace tilegrad::test {

/// Whether a sanitizer watches. Every access of memory then takes many times as long, and what a sanitizer looks for shows
/// the first time that code runs on given shapes: repeats of the same work, whose results other builds compare, are left
/// out. Cases that are slow as a whole are in the suite "slow" instead.
inline constexpr bool kSanitized = TILEGRAD_SANITIZED;

}  // namespace tilegrad::test
