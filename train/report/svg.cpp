#include "tilegrad/train/report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <limits>

#include "tilegrad/base/file.h"

namespace tilegrad::train {

namespace {

namespace fs = std::filesystem;

// Pixels.
constexpr double kWidth = 760, kTop = 44, kPlotHeight = 300, kAxisRoom = 46, kLegendLine = 20, kBar = 14;
constexpr double kLeft = 70, kRight = 20;

// Those of the page, and in the same order: where colours repeat, dashes differ.
constexpr std::array<std::string_view, 6> kColors = {"#0068a8", "#d55e00", "#00875f",
                                                     "#b0508c", "#967100", "#4a4f9c"};
constexpr std::array<std::string_view, 6> kDashes = {"", "9 6", "3 6", "12 4 3 4", "6 10", "2 3"};

std::string_view color_of(std::size_t i) { return kColors[i % kColors.size()]; }
std::string_view dashes_of(std::size_t i) { return kDashes[(i + i / kColors.size()) % kDashes.size()]; }

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
  }
  return out;
}

std::string text_at(double x, double y, const std::string& text, std::string_view anchor,
                    std::string_view more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, anchor, more,
                     escaped(text));
}

std::string line_between(double x1, double y1, double x2, double y2, std::string_view color) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n", x1,
                     y1, x2, y2, color);
}

// From numbers to pixels.
class Scale {
 public:
  Scale(double low, double high, bool logarithmic, double from, double to)
      : logarithmic_(logarithmic), low_(warp(low)), high_(warp(high)), from_(from), to_(to) {
    if (!(high_ > low_)) high_ = low_ + 1;
  }

  bool shows(double value) const { return std::isfinite(value) && (!logarithmic_ || value > 0); }
  double operator()(double value) const {
    return from_ + (warp(value) - low_) / (high_ - low_) * (to_ - from_);
  }

  // Round numbers: 1, 2 or 5 times a power of ten apart, or powers of two (of four, eight ... where these are many).
  std::vector<double> ticks() const {
    std::vector<double> ticks;
    if (logarithmic_) {
      constexpr double kMost = 9;
      const double first = std::ceil(low_ - 1e-6), last = std::floor(high_ + 1e-6);
      const double step = std::max(1.0, std::ceil((last - first + 1) / kMost));
      for (double e = std::ceil(first / step) * step; e <= last; e += step) ticks.push_back(std::exp2(e));
      if (ticks.size() > 1) return ticks;
      ticks = {std::exp2(low_), std::exp2(high_)};
      return ticks;
    }
    constexpr double kWanted = 6;
    const double rough = (high_ - low_) / kWanted, power = std::pow(10.0, std::floor(std::log10(rough)));
    const double digit = rough / power;
    const double step = power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
    for (double k = std::ceil(low_ / step - 1e-9); k * step <= high_ + 1e-9 * step; ++k)
      ticks.push_back(k * step);
    return ticks;
  }

 private:
  double warp(double value) const { return logarithmic_ ? std::log2(value) : value; }

  bool logarithmic_;
  double low_, high_, from_, to_;
};

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();

  void add(double value, bool logarithmic) {
    if (!std::isfinite(value) || (logarithmic && value <= 0)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

std::string number(double value) { return fmt::format("{:.4g}", std::abs(value) < 1e-12 ? 0 : value); }

std::string path_of(const Series& series, const Scale& x, const Scale& y, bool stepped) {
  std::string path;
  bool pen_down = false;
  for (const auto& [px, py] : series.points) {
    if (!x.shows(px) || !y.shows(py)) {
      pen_down = false;
      continue;
    }
    if (stepped && pen_down) path += fmt::format("H{:.1f}", x(px));
    path += fmt::format("{}{:.1f} {:.1f}", pen_down ? "L" : "M", x(px), y(py));
    pen_down = true;
  }
  return path;
}

std::string band_of(const Series& series, const Scale& x, const Scale& y, std::string_view color) {
  std::string there, back;
  for (const auto& [px, low, high] : series.spread) {
    if (!x.shows(px) || !y.shows(low) || !y.shows(high)) continue;
    there += fmt::format("{:.1f},{:.1f} ", x(px), y(high));
    back = fmt::format("{:.1f},{:.1f} ", x(px), y(low)) + back;
  }
  if (there.empty()) return "";
  return fmt::format("<polygon points=\"{}{}\" fill=\"{}\" fill-opacity=\"0.12\"/>\n", there, back, color);
}

std::string axes(const Chart& chart, const Scale& x, const Scale& y) {
  const double bottom = kTop + kPlotHeight, right = kWidth - kRight;
  std::string svg;
  for (const double tick : y.ticks()) {
    svg += line_between(kLeft, y(tick), right, y(tick), "#e3e3e3") +
           text_at(kLeft - 6, y(tick) + 4, number(tick), "end");
  }
  svg += line_between(kLeft, bottom, right, bottom, "#888");
  if (chart.bands.empty()) {
    for (const double tick : x.ticks()) svg += text_at(x(tick), bottom + 16, number(tick), "middle");
  }
  for (const Band& band : chart.bands) {
    svg += line_between(x(band.to), kTop, x(band.to), bottom, "#ccc");
    svg += text_at((x(band.from) + x(band.to)) / 2, bottom + 16, band.name, "middle");
  }
  svg += text_at((kLeft + right) / 2, bottom + 34, chart.x.title, "middle");
  const double middle = kTop + kPlotHeight / 2;
  return svg + text_at(16, middle, chart.y.title, "middle",
                       fmt::format(" transform=\"rotate(-90 16 {:.1f})\"", middle));
}

std::string legend(const Chart& chart, double top) {
  std::string svg;
  for (std::size_t i = 0; i < chart.series.size(); ++i) {
    const double y = top + kLegendLine * static_cast<double>(i);
    svg += fmt::format(
        "<path d=\"M{} {:.1f}h34\" stroke=\"{}\" stroke-width=\"2.5\" stroke-dasharray=\"{}\"/>\n", kLeft, y,
        color_of(i), chart.kind == Chart::Kind::bars ? "" : dashes_of(i));
    svg += text_at(kLeft + 42, y + 4, chart.series[i].name, "start");
  }
  return svg;
}

std::string document(const Chart& chart, double height, const std::string& content) {
  return fmt::format(
             "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
             "font-family=\"sans-serif\" font-size=\"12\" fill=\"none\">\n"
             "<rect width=\"{0}\" height=\"{1}\" fill=\"#fff\"/>\n<g fill=\"#222\">\n",
             kWidth, height) +
         text_at(kLeft, 24, chart.title, "start", " font-size=\"15\" font-weight=\"bold\"") + content +
         "</g>\n</svg>\n";
}

std::string lines_svg(const Chart& chart) {
  Range xs, ys;
  for (const Series& s : chart.series) {
    for (const auto& [x, y] : s.points) xs.add(x, chart.x.logarithmic), ys.add(y, chart.y.logarithmic);
    for (const auto& [x, low, high] : s.spread)
      ys.add(low, chart.y.logarithmic), ys.add(high, chart.y.logarithmic);
  }
  for (const Band& band : chart.bands) xs.add(band.from, false), xs.add(band.to, false);
  if (!chart.bands.empty()) ys.add(0, chart.y.logarithmic);
  const double legend_top = kTop + kPlotHeight + kAxisRoom;
  const double height = legend_top + kLegendLine * static_cast<double>(chart.series.size());
  if (xs.empty() || ys.empty()) return document(chart, height, text_at(kLeft, kTop + 20, "no data", "start"));
  const Scale x(xs.low, xs.high, chart.x.logarithmic, kLeft, kWidth - kRight);
  const Scale y(ys.low, ys.high, chart.y.logarithmic, kTop + kPlotHeight, kTop);
  std::string svg = axes(chart, x, y);
  for (std::size_t i = 0; i < chart.series.size(); ++i) {
    const Series& s = chart.series[i];
    svg += band_of(s, x, y, color_of(i));
    svg += fmt::format(
        "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\" stroke-dasharray=\"{}\"/>\n",
        path_of(s, x, y, chart.stepped), color_of(i), dashes_of(i));
  }
  return document(chart, height, svg + legend(chart, legend_top + 6));
}

// The value of a bar's series in a category; 0 if there is none.
double value_in(const Series& series, std::size_t category) {
  for (const auto& [x, y] : series.points) {
    if (x == static_cast<double>(category) && std::isfinite(y)) return y;
  }
  return 0;
}

// Where the longest bar or whisker ends.
double highest_end(const Chart& chart) {
  double highest = 0;
  for (std::size_t c = 0; c < chart.categories.size(); ++c) {
    double sum = 0;
    for (const Series& s : chart.series) {
      const double value = value_in(s, c);
      sum = chart.stacked ? sum + value : value;
      highest = std::max(highest, sum);
    }
  }
  for (const Series& s : chart.series) {
    for (const auto& whisker : s.spread) highest = std::max(highest, whisker[2]);
  }
  return highest;
}

// A bar with its number after it, and the whisker if there is one.
std::string bar_with_number(const Series& series, std::size_t category, const Scale& x, double y) {
  const double value = value_in(series, category);
  double end = value;
  std::string whiskers;
  for (const auto& [place, low, high] : series.spread) {
    if (place != static_cast<double>(category)) continue;
    whiskers += line_between(x(low), y + kBar / 2, x(high), y + kBar / 2, "#222");
    end = std::max(value, high);
  }
  return whiskers + text_at(x(end) + 5, y + kBar - 3, number(value), "start");
}

// Bars are horizontal: a row for each series in each category, or one row if they are stacked.
std::string bars_svg(const Chart& chart) {
  constexpr double kRowGap = 10, kLetter = 6.6, kMostForNames = 380;
  std::size_t longest = 0;
  for (const std::string& name : chart.categories) longest = std::max(longest, name.size());
  const double names = std::min(kMostForNames, 20 + kLetter * static_cast<double>(longest));
  const std::size_t rows_each = chart.stacked ? 1 : std::max<std::size_t>(1, chart.series.size());
  const double row = kBar * static_cast<double>(rows_each) + kRowGap;
  const Scale x(0, highest_end(chart), false, names, kWidth - 3 * kRight);
  std::string svg;
  for (std::size_t c = 0; c < chart.categories.size(); ++c) {
    double begin = 0, y = kTop + row * static_cast<double>(c);
    svg += text_at(names - 8, y + (row - kRowGap) / 2 + 4, chart.categories[c], "end");
    for (std::size_t i = 0; i < chart.series.size(); ++i) {
      const double end = begin + value_in(chart.series[i], c);
      svg += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{}\" fill=\"{}\"/>\n",
                         x(begin), y, std::max(0.0, x(end) - x(begin)), kBar, color_of(i));
      if (chart.stacked) {
        begin = end;
      } else {
        svg += bar_with_number(chart.series[i], c, x, y);
        y += kBar;
      }
    }
  }
  const double bottom = kTop + row * static_cast<double>(chart.categories.size());
  svg += text_at((names + kWidth) / 2, bottom + 14, chart.y.title, "middle");
  const bool needs_legend = chart.series.size() > 1;
  const double legend_height = needs_legend ? kLegendLine * static_cast<double>(chart.series.size()) : 0;
  if (needs_legend) svg += legend(chart, bottom + 34);
  return document(chart, bottom + 30 + legend_height, svg);
}

// "Training loss: difference from a/b" -> "training_loss_difference_from_a_b"
std::string file_name(const std::string& title) {
  std::string name;
  for (const char c : title) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0;
    if (plain)
      name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    else if (!name.empty() && name.back() != '_')
      name += '_';
  }
  while (!name.empty() && name.back() == '_') name.pop_back();
  return name;
}

}  // namespace

std::string chart_svg(const Chart& chart) {
  return chart.kind == Chart::Kind::bars ? bars_svg(chart) : lines_svg(chart);
}

std::vector<fs::path> write_svgs(const fs::path& folder, const std::vector<Chart>& charts,
                                 const std::string& ending) {
  make_folder(folder);
  std::vector<fs::path> files;
  for (const Chart& chart : charts) {
    files.push_back(folder / (file_name(chart.title) + ending));
    write_file(files.back(), chart_svg(chart));
  }
  return files;
}

}  // namespace tilegrad::train
