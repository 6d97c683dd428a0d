#include "tilegrad/train/labs/flash_pictures.h"

#include <doctest/doctest.h>

#include "tests/train/lab_output.h"
#include "tilegrad/train/labs/flash_lab.h"
#include "tilegrad/train/labs/flash_tiles.h"

using namespace tilegrad;
using namespace tilegrad::train;

namespace {

LabOutput run_flash(const std::string& folder, const FlashLab& lab) {
  return run_lab(folder, "flash", [&](const auto& options, const auto& console) {
    return run_flash_lab(lab, options, console);
  });
}

const nlohmann::json* titled(const nlohmann::json& list, const std::string& title) {
  const auto found =
      std::find_if(list.begin(), list.end(), [&](const auto& entry) { return entry["title"] == title; });
  return found == list.end() ? nullptr : &*found;
}

}  // namespace

TEST_CASE("lab flash: the roof rises with the bandwidth and ends at the peak") {
  const Chart chart = roofline(200, 20, {{"naive", 4, 50}, {"flash", 100, 150}});
  REQUIRE(chart.series.size() == 3);
  const auto& roof = chart.series[0].points;
  CHECK(roof == std::vector<std::pair<double, double>>{{2, 40}, {10, 200}, {200, 200}});
  CHECK(chart.series[2].name == "flash");
  CHECK(chart.series[2].points == std::vector<std::pair<double, double>>{{100, 150}});
}

TEST_CASE("lab flash: a causal walk skips what lies above the diagonal and cuts what lies on it") {
  const FlashTask task = {.heads = 2, .seq = 100, .head_size = 8, .causal = true, .tile_q = 32, .tile_k = 32};
  for (const Grid& grid : walk_pictures(task, 2)) {
    CAPTURE(grid.title);
    REQUIRE(grid.rows == std::vector<std::string>{"0–31", "32–63", "64–95", "96–99"});
    REQUIRE(grid.columns == grid.rows);
    for (std::size_t r = 0; r < 4; ++r) {
      for (std::size_t c = 0; c < 4; ++c) {
        const Grid::Cell& cell = grid.cells[r * 4 + c];
        const std::string& kind = grid.kinds[cell.kind];
        CHECK(kind == (c > r ? "skipped" : c == r ? "cut" : "full"));
        CHECK(cell.text.empty() == (c > r));
      }
    }
  }
  // Forward, the last tile of queries comes first, and its task is the first one of thread a.
  const Grid forward = walk_pictures(task, 2)[0];
  CHECK(forward.cells[12].text == "a1");
  CHECK(forward.cells[13].text == "a2");
  CHECK(forward.cells[8].text == "b1");
}

TEST_CASE("lab flash: a long walk is cut to its first tiles") {
  const FlashTask task = {.seq = 4096, .head_size = 8, .tile_q = 64, .tile_k = 64};
  const Grid grid = walk_pictures(task, 2)[0];
  CHECK(grid.rows.size() == 32);
  CHECK(grid.cells.size() == 32 * 32);
  CHECK(grid.note.find("At most the first 32 tiles") != std::string::npos);
}

TEST_CASE("lab flash: the page has roofline and walk without a sweep, and the tiles that were asked for") {
  const TemporaryFolder folder;
  const FlashLab lab = {
      .heads = 1, .seq = 64, .head_size = 8, .causal = true, .repeats = 1, .tile_q = 16, .tile_k = 32};
  const LabOutput output = run_flash(folder / "lab", lab);
  check_published(output, 4);
  const nlohmann::json page = data_of(output.html);
  const nlohmann::json* const roof = titled(page.at("charts"), "Roofline");
  REQUIRE(roof != nullptr);
  CHECK(roof->at("series").size() == 5);
  const nlohmann::json* const walk = titled(page.at("grids"), "The walk over tiles, forward");
  REQUIRE(walk != nullptr);
  CHECK(walk->at("rows").size() == 4);
  CHECK(walk->at("columns").size() == 2);
  CHECK(output.json.at("configuration").at("tile_q") == 16);
}

TEST_CASE("lab flash: the tiles of a task reach the kernel") {
  const FlashTask task = {.seq = 8, .tile_q = 3, .tile_k = 5};
  CHECK(task.problem().options.tiles.queries == 3);
  CHECK(task.problem().options.tiles.keys == 5);
}

TEST_CASE("lab flash: a sweep over tiles is a heat map for each pass") {
  const TemporaryFolder folder;
  const FlashLab lab = {.heads = 1, .seq = 40, .head_size = 8, .repeats = 1, .tile_sweep = true};
  const LabOutput output = run_flash(folder / "lab", lab);
  const Json& tiles = output.json.at("details").at("tiles");
  REQUIRE(tiles.size() == 5);  // 16 and 32 on both sides, and what flash chooses
  CHECK(tiles[0].at("tile_q") == 0);
  CHECK(tiles[2].at("tile_q") == 16);
  CHECK(tiles[2].at("tile_k") == 32);
  const nlohmann::json page = data_of(output.html);
  const nlohmann::json* const map = titled(page.at("grids"), "Time by the size of a tile, forward");
  REQUIRE(map != nullptr);
  CHECK(map->at("rows") == nlohmann::json({"16", "32"}));
  CHECK(map->at("cells").size() == 4);
  CHECK(map->at("cells")[1].at("value") == tiles[2].at("forward_ms"));
  CHECK(output.text.find("have the lowest median") != std::string::npos);
}

TEST_CASE("lab flash, bench: sizes of tiles that make no sense are one line") {
  check_error({"lab", "flash", "--tile-q", "0"}, kWrongCommandLine, "--tile-q");
  check_error({"lab", "flash", "--tile-k", "8", "--tile-sweep"}, kWrongCommandLine,
              "--tile-sweep excludes --tile-k");
  check_error({"bench", "--tile-k", "x"}, kWrongCommandLine, "--tile-k");
}

TEST_CASE("bench: takes sizes of tiles") {
  const Output output = run_program(
      {"bench", "--q-len", "40", "--d", "8", "--tile-q", "16", "--tile-k", "8", "--seconds", "0"});
  CHECK(output.code == kSuccess);
}
