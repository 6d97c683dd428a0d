#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "tilegrad/train/report/table.h"

namespace tilegrad::train {

struct Axis {
  std::string title = {};    ///< with the unit: "time, ms"
  bool logarithmic = false;  ///< at first; the page lets the reader change it where `switchable`
  bool switchable = false;
};

struct Series {
  std::string name = {};
  std::vector<std::pair<double, double>> points = {};  ///< (x, y); NaN or Inf leaves a gap
  std::vector<std::pair<double, double>> shaded = {};  ///< lines: the area below is filled from x to x
  std::vector<std::array<double, 3>> spread =
      {};  ///< (x, low, high): a band around a line, a whisker on a bar
};

/// A stretch of the x axis with a name, drawn behind the series.
struct Band {
  double from = 0, to = 0;
  std::string name = {};
};

struct Chart {
  std::string title = {};
  std::string note = {};  ///< one line on what to look for; may be empty
  enum class Kind { line, bars } kind = Kind::line;
  Axis x = {}, y = {};
  std::vector<Series> series = {};
  std::vector<std::string> categories = {};  ///< bars: the name of x = 0, 1, ...
  bool stacked = false;                      ///< bars
  bool smoothable = false;                   ///< a slider smooths the series
  bool stepped = false;                      ///< lines: a value holds until the next one
  std::vector<Band> bands = {};
};

/// The page of one experiment.
struct Report {
  std::string title = {};
  std::string finding = {};  ///< one line, computed from the numbers
  /// Configuration, seed, machine, versions, command.
  std::vector<std::pair<std::string, std::string>> facts = {};
  std::vector<Table> tables = {};
  std::vector<Chart> charts = {};
  std::vector<std::string> warnings = {};  ///< what is missing or damaged, one line each
};

/// Writes one self-contained HTML file (through a temporary file that is renamed). Throws Error.
void write_report(const std::filesystem::path& file, const Report& report);

}  // namespace tilegrad::train
