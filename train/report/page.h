#pragma once

#include <array>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tilegrad/train/report/attention_view.h"
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

/// A table of coloured cells: a heat map, whose colours are values, or a picture of blocks, whose colours are kinds.
struct Grid {
  struct Cell {
    double value = std::numeric_limits<double>::quiet_NaN();  ///< heat maps; NaN: none
    std::size_t kind = 0;                                     ///< other grids: a place in `kinds`
    std::string text = {};                                    ///< stands in the cell, if there is room
    std::string detail = {};                                  ///< what the page says of the chosen cell
  };
  std::string title = {};
  std::string note = {};
  std::string row_title = {}, column_title = {};
  std::vector<std::string> rows = {}, columns = {};
  std::vector<std::string> kinds = {};  ///< their names; none: a heat map
  std::vector<Cell> cells = {};         ///< row by row
};

/// The page of one experiment.
struct Report {
  std::string title = {};
  std::string finding = {};  ///< one line, computed from the numbers
  /// Configuration, seed, machine, versions, command.
  std::vector<std::pair<std::string, std::string>> facts = {};
  std::vector<Table> tables = {};
  std::vector<Chart> charts = {};
  std::vector<Grid> grids = {};
  std::optional<AttentionView> attention = {};
  std::optional<LensView> lens = {};
  std::vector<std::string> warnings = {};  ///< what is missing or damaged, one line each
};

/// Writes one self-contained HTML file (through a temporary file that is renamed). Throws Error.
void write_report(const std::filesystem::path& file, const Report& report);

}  // namespace tilegrad::train
