#pragma once

#include <array>
#include <string_view>

namespace tilegrad::train {

/// The parts of a training step. `recompute` is what a checkpoint runs again during backward.
enum class Phase { forward, backward, recompute, update };
inline constexpr std::array kPhases = {Phase::forward, Phase::backward, Phase::recompute, Phase::update};

std::string_view to_string(Phase phase);

/// What the tapes of this thread are doing; they know nothing of updates.
Phase phase_of_tapes();

}  // namespace tilegrad::train
