#include "tilegrad/train/report/page.h"

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "tilegrad/base/file.h"
#include "tilegrad/base/json.h"
#include "tilegrad/train/report/page_assets.h"

namespace tilegrad::train {

namespace {

using nlohmann::ordered_json;

ordered_json to_json(const Axis& axis) {
  return {{"title", axis.title}, {"logarithmic", axis.logarithmic}, {"switchable", axis.switchable}};
}

// NaN and Inf become null, which is how JSON and Chart.js write a gap.
ordered_json to_json(const std::vector<std::pair<double, double>>& pairs) {
  auto json = ordered_json::array();
  for (const auto& [first, second] : pairs) json.push_back({first, second});
  return json;
}

ordered_json to_json(const Series& s) {
  auto spread = ordered_json::array();
  for (const auto& [x, low, high] : s.spread) spread.push_back({x, low, high});
  return {{"name", s.name},
          {"points", to_json(s.points)},
          {"shaded", to_json(s.shaded)},
          {"spread", std::move(spread)}};
}

ordered_json to_json(const Chart& chart) {
  auto series = ordered_json::array(), bands = ordered_json::array();
  for (const Series& s : chart.series) series.push_back(to_json(s));
  for (const Band& b : chart.bands) bands.push_back({{"from", b.from}, {"to", b.to}, {"name", b.name}});
  return {{"title", chart.title},
          {"note", chart.note},
          {"kind", chart.kind == Chart::Kind::bars ? "bars" : "line"},
          {"x", to_json(chart.x)},
          {"y", to_json(chart.y)},
          {"series", std::move(series)},
          {"categories", chart.categories},
          {"stacked", chart.stacked},
          {"smoothable", chart.smoothable},
          {"stepped", chart.stepped},
          {"bands", std::move(bands)}};
}

ordered_json to_json(const Grid& grid) {
  auto cells = ordered_json::array();
  for (const Grid::Cell& cell : grid.cells) {
    cells.push_back(
        {{"value", cell.value}, {"kind", cell.kind}, {"text", cell.text}, {"detail", cell.detail}});
  }
  return {{"title", grid.title},         {"note", grid.note},
          {"row_title", grid.row_title}, {"column_title", grid.column_title},
          {"rows", grid.rows},           {"columns", grid.columns},
          {"kinds", grid.kinds},         {"cells", std::move(cells)}};
}

template <class View>
ordered_json or_null(const std::optional<View>& view) {
  return view ? to_json(*view) : ordered_json();
}

ordered_json to_json(const Report& report) {
  auto tables = ordered_json::array(), charts = ordered_json::array(), grids = ordered_json::array();
  for (const Table& t : report.tables) {
    tables.push_back({{"title", t.title}, {"columns", t.columns}, {"rows", t.rows}, {"folded", t.folded}});
  }
  for (const Chart& chart : report.charts) charts.push_back(to_json(chart));
  for (const Grid& grid : report.grids) grids.push_back(to_json(grid));
  ordered_json facts = ordered_json::array();
  for (const auto& [name, value] : report.facts) facts.push_back({name, value});
  return {{"title", report.title},       {"finding", report.finding},
          {"warnings", report.warnings}, {"facts", std::move(facts)},
          {"tables", std::move(tables)}, {"charts", std::move(charts)},
          {"grids", std::move(grids)},   {"attention", or_null(report.attention)},
          {"lens", or_null(report.lens)}};
}

// Text that may stand in HTML, and JSON that may stand in a script: without `<` nothing can end the element.
std::string replaced(std::string_view text, std::string_view what, std::string_view by) {
  std::string out;
  for (std::size_t end; (end = text.find(what)) != std::string_view::npos;) {
    out.append(text.substr(0, end)).append(by);
    text.remove_prefix(end + what.size());
  }
  return out.append(text);
}

std::string html_text(std::string_view text) {
  return replaced(replaced(replaced(text, "&", "&amp;"), "<", "&lt;"), ">", "&gt;");
}

std::string script_json(const ordered_json& json) { return replaced(json_text(json), "<", "\\u003c"); }

// Fills each {{name}} of the page in one pass, so that nothing that was filled in is looked at again.
std::string filled(std::string_view page,
                   const std::vector<std::pair<std::string_view, std::string>>& parts) {
  std::string out;
  for (const auto& [mark, part] : parts) {
    const auto at = page.find(mark);
    out.append(page.substr(0, at)).append(part);
    page.remove_prefix(at + mark.size());
  }
  return out.append(page);
}

}  // namespace

void write_report(const std::filesystem::path& file, const Report& report) {
  write_file(file, filled(kPageHtml, {{"{{title}}", html_text(report.title)},
                                      {"{{page.css}}", std::string(kPageCss)},
                                      {"{{report}}", script_json(to_json(report))},
                                      {"{{chart.js}}", std::string(kChartJs)},
                                      {"{{elements.js}}", std::string(kElementsJs)},
                                      {"{{chart_plugins.js}}", std::string(kChartPluginsJs)},
                                      {"{{charts.js}}", std::string(kChartsJs)},
                                      {"{{grids.js}}", std::string(kGridsJs)},
                                      {"{{attention.js}}", std::string(kAttentionJs)},
                                      {"{{page.js}}", std::string(kPageJs)}}));
}

}  // namespace tilegrad::train
