#include "train/report.h"

#include "base/file.h"

namespace tilegrad::train {

namespace {

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
  return out;
}

std::string row(const std::vector<std::string>& cells, const std::string& tag) {
  std::string out = "<tr>";
  for (const std::string& cell : cells) out += "<" + tag + ">" + escaped(cell) + "</" + tag + ">";
  return out + "</tr>\n";
}

}  // namespace

void write_report(const std::filesystem::path& file, const Report& report) {
  std::string html = "<!doctype html>\n<meta charset=\"utf-8\">\n<h1>" + escaped(report.title) +
                     "</h1>\n<p>" + escaped(report.finding) + "</p>\n";
  for (const ReportTable& table : report.tables) {
    html += "<h2>" + escaped(table.title) + "</h2>\n<table>\n" + row(table.columns, "th");
    for (const auto& cells : table.rows) html += row(cells, "td");
    html += "</table>\n";
  }
  write_file(file, html);
}

}  // namespace tilegrad::train
