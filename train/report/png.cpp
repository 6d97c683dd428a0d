#include "tilegrad/train/report/png.h"

#include <unistd.h>

#include <cstdlib>
#include <sstream>

#include "tilegrad/base/error.h"
#include "tilegrad/base/process.h"
#include "tilegrad/train/report/svg.h"

namespace tilegrad::train {

namespace {

namespace fs = std::filesystem;

constexpr const char* kConverter = "rsvg-convert";

// Removes the pictures that were only a step on the way, whatever ends it.
struct RemoveAtEnd {
  std::vector<fs::path> files;
  ~RemoveAtEnd() {
    std::error_code ignored;
    for (const fs::path& file : files) fs::remove(file, ignored);
  }
};

}  // namespace

fs::path png_converter() {
  const char* const path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const fs::path program = fs::path(folder) / kConverter;
    if (!folder.empty() && ::access(program.c_str(), X_OK) == 0) return program;
  }
  fail("png: {} is not installed (Debian: librsvg2-bin); --svg needs no other program", kConverter);
}

std::vector<fs::path> write_pngs(const fs::path& folder, const std::vector<Chart>& charts) {
  constexpr const char* kTwicePixels = "2";  // sharp in print and on screens of many pixels
  const fs::path converter = png_converter();
  const RemoveAtEnd pictures{write_svgs(folder, charts, ".png.svg")};
  std::vector<fs::path> files;
  for (const fs::path& svg : pictures.files) {
    fs::path png = svg;
    png.replace_extension();  // of the two endings the last
    const ChildResult child = run_child(converter, {"--zoom", kTwicePixels, "--background-color", "white",
                                                    "--output", png.string(), svg.string()});
    check(child.exit_code == 0, "png: {} failed on {} with exit code {}", converter.string(), png.string(),
          child.exit_code);
    files.push_back(std::move(png));
  }
  return files;
}

}  // namespace tilegrad::train
