#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tilegrad/train/report/page.h"

namespace tilegrad::train {

/// The program that turns SVG into PNG: rsvg-convert of librsvg, which Debian has as librsvg2-bin, on $PATH. Throws
/// Error if it is not there.
std::filesystem::path png_converter();

/// Writes every chart into `folder` as a PNG, under its title: "training_loss.png". Returns the files. Throws Error if
/// the converter is missing or fails.
std::vector<std::filesystem::path> write_pngs(const std::filesystem::path& folder,
                                              const std::vector<Chart>& charts);

}  // namespace tilegrad::train
