#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "tilegrad/train/report/page.h"

namespace tilegrad::train {

/// A chart as a picture: one SVG document that refers to nothing outside.
std::string chart_svg(const Chart& chart);

/// Writes every chart into `folder`, under its title and this ending: "training_loss.svg". Returns the files.
std::vector<std::filesystem::path> write_svgs(const std::filesystem::path& folder,
                                              const std::vector<Chart>& charts,
                                              const std::string& ending = ".svg");

}  // namespace tilegrad::train
