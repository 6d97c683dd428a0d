#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "tilegrad/train/run/names.h"

namespace tilegrad::train {

/// An option ("--name", perhaps with aliases: "--name,--alias") that takes one of the names of E and writes
/// its value to `field`: an E or an optional one.
template <class E, class Field>
CLI::Option* add_choice(CLI::App& app, const std::string& name, Field& field, const std::string& help) {
  const std::string what = name.substr(2, name.find(',') - 2);  // the first name, without the dashes
  return app
      .add_option_function<std::string>(
          name, [&field, what](const std::string& text) { field = value_of<E>(what, text); }, help)
      ->check(CLI::IsMember(all_names<E>()));
}

}  // namespace tilegrad::train
