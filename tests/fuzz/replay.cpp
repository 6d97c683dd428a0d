// Runs every file of the folders that are named, and says which one it was if the target crashes.
#include <cstdio>
#include <exception>
#include <filesystem>

#include "tests/fuzz/target.h"
#include "tilegrad/base/file.h"

int main(int argc, char** argv) {
  int inputs = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
      if (!entry.is_regular_file()) continue;
      std::fprintf(stderr, "%s\n", entry.path().c_str());
      tilegrad::fuzz::run(tilegrad::read_file(entry.path()));
      ++inputs;
    }
  }
  std::printf("%d inputs\n", inputs);
  return inputs > 0 ? 0 : 1;
}
