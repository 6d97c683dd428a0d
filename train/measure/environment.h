#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace tilegrad::train {

/// environment.json: what decides how fast a run was, apart from its settings, and the command that repeats it.
struct Environment {
  std::string command = {};
  std::string processor = {};
  std::string memory = {};
  std::string system = {};
  std::string simd = {};      ///< the vector instructions that the kernels chose
  std::string openblas = {};  ///< the processor that OpenBLAS chose its kernels for
  std::string compiler = {};
  std::string tilegrad = {};  ///< version and commit
};

/// Of this machine and this program.
Environment current_environment(std::string command);

/// The vector instructions that the kernels chose: "AVX2".
std::string simd_target();

/// As names and values, for a report; what is not known is left out.
std::vector<std::pair<std::string, std::string>> facts_of(const Environment& environment);

void write_environment(const std::filesystem::path& file, const Environment& environment);

/// What is known: nothing if the file is missing or, with a warning, if it is damaged.
Environment read_environment(const std::filesystem::path& file, std::vector<std::string>& warnings);

}  // namespace tilegrad::train
