#include "tilegrad/train/labs/flash_pictures.h"

#include <doctest/doctest.h>

#include "tests/train/lab_output.h"
#include "tilegrad/train/labs/flash_lab.h"
#include "tilegrad/train/labs/flash_rows.h"
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

// "cut", "full" or "skipped" of a row of cells, as their first letters.
std::string letters_of(const Grid& grid, std::size_t row) {
  std::string letters;
  for (std::size_t c = 0; c < grid.columns.size(); ++c)
    letters += grid.kinds[grid.cells[row * grid.columns.size() + c].kind][0];
  return letters;
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

TEST_CASE("lab flash: the roofline has forward and backward of each kernel") {
  std::vector<FlashRow> rows;
  for (const AttentionKernel kernel : {AttentionKernel::naive, AttentionKernel::flash}) {
    rows.push_back(
        {.kernel = kernel, .time = {.ms = 2, .round_ms = {1, 2, 9}}, .moved = 1e6, .operations = 2e6});
    rows.push_back({.kernel = kernel,
                    .backward = true,
                    .time = {.ms = 7, .round_ms = {5, 7, 10}},
                    .moved = 3e6,
                    .operations = 12e6});
  }
  rows.back().time.round_ms = {1, 2, 3};  // noise: both passes of flash took no longer than one
  const Chart chart = roofline_of({.gflops = 100, .gbytes_per_s = 10}, rows);
  REQUIRE(chart.series.size() == 4);
  CHECK(chart.series[1].name == "naive, forward");
  CHECK(chart.series[1].points.front() == std::pair{2.0, 1.0});
  CHECK(chart.series[2].name == "naive, backward");
  // 10e6 operations and 2e6 bytes in the median of 4, 5 and 1 ms.
  CHECK(chart.series[2].points.front() == std::pair{5.0, 2.5});
  CHECK(chart.series[3].name == "flash, forward");
}

TEST_CASE("lab flash: a window's walk begins where its queries begin to see, and skips what lies outside") {
  const FlashTask task = {
      .seq = 96, .head_size = 8, .causal = true, .tile_q = 32, .tile_k = 32, .window_left = 40};
  const Grid forward = walk_pictures(task, 1)[0];
  // The tiles of the last queries begin at key 24 = 64 - 40, not at a multiple of 32.
  REQUIRE(forward.columns == std::vector<std::string>{"0–23", "24–31", "32–55", "56–63", "64–87", "88–95"});
  REQUIRE(forward.rows.size() == 3);
  CHECK(letters_of(forward, 0) == "ccssss");
  CHECK(letters_of(forward, 1) == "ccccss");
  CHECK(letters_of(forward, 2) == "sccccc");
  CHECK(forward.cells[13].text == forward.cells[14].text);  // one tile
  const Grid backward = walk_pictures(task, 1)[1];
  REQUIRE(backward.columns == std::vector<std::string>{"0–31", "32–63", "64–95"});
  CHECK(letters_of(backward, 0) == "css");
  CHECK(letters_of(backward, 2) == "ccc");
}

TEST_CASE("lab flash: a wide window leaves whole tiles between the two that it cuts") {
  const FlashTask task = {
      .seq = 128, .head_size = 8, .causal = true, .tile_q = 16, .tile_k = 16, .window_left = 64};
  CHECK(letters_of(walk_pictures(task, 1)[0], 7) == "ssscfffc");
}

TEST_CASE("lab flash: one query against many keys is drawn as parts of split-KV") {
  const FlashTask task = {.heads = 2, .seq = 1, .head_size = 8, .causal = true, .tile_k = 64, .kv_seq = 512};
  const Grid forward = walk_pictures(task, 2)[0];
  REQUIRE(forward.rows == std::vector<std::string>{"0–0"});
  REQUIRE(forward.columns.size() == 8);
  CHECK(letters_of(forward, 0) == "ffffffff");
  CHECK(forward.note.starts_with("Tiles of 1 query and 64 keys. "));
  CHECK(forward.note.find("cut into 4 parts") != std::string::npos);
  CHECK(forward.cells[0].text == "1/4 a1");
  CHECK(forward.cells[1].text == "1/4 a3");  // after the other head's tile of the same keys
  CHECK(forward.cells[2].text == "2/4 b1");
  CHECK(forward.cells[7].text.starts_with("4/4 "));
}

TEST_CASE("lab flash: window and length of the keys reach the problem, the files and the finding") {
  const TemporaryFolder folder;
  const FlashLab lab = {
      .heads = 1, .seq = 4, .head_size = 8, .repeats = 1, .kv_seq = 40, .window = {.left = 16, .right = 2}};
  const LabOutput output = run_flash(folder / "lab", lab);
  const Json& configuration = output.json.at("configuration");
  CHECK(configuration.at("kv_seq") == 40);
  CHECK(configuration.at("window_left") == 16);
  CHECK(configuration.at("window_right") == 2);
  // Queries 36 to 39 see 16 keys to the left, themselves, and what is left of two to the right.
  CHECK(output.row(0).at("operations") == 2 * 2 * 8 * (19 + 19 + 18 + 17));
  CHECK(output.text.find("at T = 4 and 40 keys flash uses") != std::string::npos);
}

TEST_CASE("lab flash: options that contradict each other are one line") {
  check_error({"lab", "flash", "--window", "1,2,3"}, kWrongCommandLine, "--window");
  check_error({"lab", "flash", "--window", "x"}, kWrongCommandLine, "--window");
  check_error({"lab", "flash", "--kv-len", "0"}, kWrongCommandLine, "--kv-len");
  check_error({"lab", "flash", "--kv-len", "9", "--sweep"}, kWrongCommandLine, "--kv-len excludes --sweep");
  check_error({"lab", "flash", "--causal", "--window", "9", "--mine", "x"}, kWrongCommandLine,
              "--window excludes --mine");
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
  CHECK(grid.note.find("At most the first 32 rows and columns") != std::string::npos);
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
  CHECK(roof->at("series").size() >= 3);  // backward may drown in noise
  const nlohmann::json* const walk = titled(page.at("grids"), "The walk over tiles, forward");
  REQUIRE(walk != nullptr);
  CHECK(walk->at("rows").size() == 4);
  CHECK(walk->at("columns").size() ==
        4);  // the keys of 16 queries end at the diagonal, in the middle of a tile
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
  // The lowest of many medians is measured again before anything is said of it.
  const auto finding = output.json.at("finding").get<std::string>();
  CHECK(finding.find("of 4 sizes of tiles") != std::string::npos);
  CHECK(finding.find("measured again, the times of this size and the one that flash chooses are not disti") !=
        std::string::npos);    // one round decides nothing
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
