#pragma once

#include <filesystem>
#include <vector>

#include "tilegrad/train/app/compare_runs.h"

/// What a folder already holds of a comparison.
namespace tilegrad::train {

enum class Standing {
  absent,      ///< no run
  other,       ///< a run with other settings
  begun,       ///< this run, which has not saved yet
  unfinished,  ///< this run, which can be resumed
  finished,
};

/// How far the run in variant.config.out has come.
Standing standing_of(const Variant& variant);

/// Throws, naming a free folder, if the folder holds results that are not of these runs.
void check_usable(const std::filesystem::path& folder, const std::vector<Variant>& variants);

/// The first of folder, folder-2, ... that holds nothing, or these runs but not all of them finished.
std::filesystem::path folder_to_go_on(const std::filesystem::path& folder, std::vector<Variant> variants);

/// Puts each run into a folder of its own inside `folder`.
void place(std::vector<Variant>& variants, const std::filesystem::path& folder);

}  // namespace tilegrad::train
