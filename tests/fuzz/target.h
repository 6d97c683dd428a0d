#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string_view>

#include "tilegrad/base/error.h"

/// A fuzz target is one file with one function, fuzz(input): it may throw tilegrad::Error, which is how the
/// program refuses what it cannot use, and nothing else. engine.cpp makes it a program of libFuzzer, replay.cpp one
/// that runs the inputs of a folder.
namespace tilegrad::fuzz {

void fuzz(std::string_view input);

/// Runs the target. What it throws apart from Error ends the program.
inline void run(std::string_view input) {
  try {
    fuzz(input);
  } catch (const Error&) {
  }
}

/// Must hold whatever the input is.
inline void expect(bool condition, std::string_view what) {
  if (!condition) throw std::logic_error(std::string(what));
}

/// A folder of this process in memory, empty at first.
const std::filesystem::path& scratch_folder();

}  // namespace tilegrad::fuzz
