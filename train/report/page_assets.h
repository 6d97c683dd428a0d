#pragma once

#include <string_view>

/// The files that a report is made of, embedded into the program when it is built (cmake/embed.cmake).
namespace tilegrad::train {

extern const std::string_view kPageHtml;  ///< train/report/page.html, with a {{mark}} for each of the others
extern const std::string_view kPageCss;   ///< train/report/page.css
extern const std::string_view kElementsJs;      ///< train/report/elements.js
extern const std::string_view kChartPluginsJs;  ///< train/report/chart_plugins.js
extern const std::string_view kChartsJs;        ///< train/report/charts.js
extern const std::string_view kGridsJs;         ///< train/report/grids.js
extern const std::string_view kAttentionJs;     ///< train/report/attention.js
extern const std::string_view kPageJs;          ///< train/report/page.js
extern const std::string_view kChartJs;         ///< Chart.js

}  // namespace tilegrad::train
