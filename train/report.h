#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tilegrad::train {

struct Axis {
  std::string title;        ///< with the unit: "time, ms"
  bool logarithmic = false; ///< at first; the page lets the reader change it where `switchable`
  bool switchable = false;
};

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  ///< (x, y); NaN or Inf leaves a gap
};

struct Chart {
  std::string title;
  std::string note;  ///< one line on what to look for; may be empty
  enum class Kind { line, bars } kind = Kind::line;
  Axis x, y;
  std::vector<Series> series;
  std::vector<std::string> categories;  ///< bars: the name of x = 0, 1, ...
  bool stacked = false;                 ///< bars
  bool smoothable = false;              ///< a slider smooths the series
};

struct ReportTable {
  std::string title;
  std::vector<std::string> columns;  ///< with their units
  std::vector<std::vector<std::string>> rows;
};

/// A page that stands for one experiment.
struct Report {
  std::string title;
  std::string finding;                                     ///< one line, computed from the numbers
  std::vector<std::pair<std::string, std::string>> facts;  ///< configuration, seed, machine, versions, command
  std::vector<ReportTable> tables;
  std::vector<Chart> charts;
};

/// Writes one self-contained HTML file (through a temporary file that is renamed). Throws Error.
void write_report(const std::filesystem::path& file, const Report& report);

}  // namespace tilegrad::train
