#pragma once

#include <fmt/format.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tilegrad/base/format.h"
#include "tilegrad/train/measure/csv.h"
#include "tilegrad/train/report/table.h"

/// One list of columns for each result: text table, JSON row and CSV line are made from it.
namespace tilegrad::train {

/// Rows keep their order of keys in files.
using OrderedJson = nlohmann::ordered_json;
/// How a number is written in a table.
using Show = std::function<std::string(const OrderedJson&)>;

/// A number of a row: where it stands in tables, where it stands in files, and how a table writes it.
template <class Row>
struct Column {
  std::string heading;                           ///< in tables, with the unit; empty: in files only
  std::string key;                               ///< in JSON and CSV; empty: in tables only
  std::function<OrderedJson(const Row&)> value;  ///< null: there is no such number
  Show show = {};                                ///< empty: as it is
};

inline std::string text_of(const OrderedJson& value) {
  return value.is_string() ? value.get<std::string>() : value.is_null() ? "" : value.dump();
}

template <class T>
OrderedJson or_null(const std::optional<T>& value) {
  return value ? OrderedJson(*value) : OrderedJson();
}

/// A number in this format of fmt: "{:.1f} %".
inline Show number(const std::string& format) {
  return [format](const OrderedJson& value) {
    return fmt::format(fmt::runtime(format), value.template get<double>());
  };
}
inline std::string bytes(const OrderedJson& value) { return format_bytes(value.get<Index>()); }

template <class Row>
Table table_of(const std::string& title, const std::vector<Column<Row>>& columns,
               const std::vector<Row>& rows) {
  Table table = {.title = title};
  for (const auto& column : columns) {
    if (!column.heading.empty()) table.columns.push_back(column.heading);
  }
  for (const Row& row : rows) {
    auto& cells = table.rows.emplace_back();
    for (const auto& column : columns) {
      if (column.heading.empty()) continue;
      const OrderedJson value = column.value(row);
      cells.push_back(value.is_null() ? "-" : column.show ? column.show(value) : text_of(value));
    }
  }
  return table;
}

template <class Row>
OrderedJson json_of(const std::vector<Column<Row>>& columns, const Row& row) {
  OrderedJson json = OrderedJson::object();
  for (const auto& column : columns) {
    if (!column.key.empty()) json[column.key] = column.value(row);
  }
  return json;
}

template <class Row>
OrderedJson json_of(const std::vector<Column<Row>>& columns, const std::vector<Row>& rows) {
  OrderedJson list = OrderedJson::array();
  for (const Row& row : rows) list.push_back(json_of(columns, row));
  return list;
}

/// Rows of equal keys as CSV, under a line with the keys; null is an empty cell.
inline std::string csv_of(const OrderedJson& rows) {
  std::vector<std::vector<std::string>> lines;
  for (const OrderedJson& row : rows) {
    if (lines.empty()) {
      auto& heading = lines.emplace_back();
      for (const auto& item : row.items()) heading.push_back(item.key());
    }
    auto& cells = lines.emplace_back();
    for (const auto& item : row.items()) cells.push_back(text_of(item.value()));
  }
  return csv(lines);
}

}  // namespace tilegrad::train
