#include "tilegrad/base/memory.h"

#include <doctest/doctest.h>
#include <malloc.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "tests/limits.h"
#include "tilegrad/base/error.h"
#include "tilegrad/base/format.h"

namespace tilegrad::memory {
namespace {

Index live(Category category) { return usage().live_by_category[static_cast<std::size_t>(category)]; }
Index at_peak(Category category) { return usage().at_peak[static_cast<std::size_t>(category)]; }

TEST_CASE("memory: live bytes are counted by category and return to zero") {
  REQUIRE(usage().live == 0);
  {
    const Block weights(1000, Category::parameters);
    const Block scratch(24, Category::workspace);
    CHECK(usage().live == 1024);
    CHECK(live(Category::parameters) == 1000);
    CHECK(live(Category::workspace) == 24);
    CHECK(live(Category::gradients) == 0);
  }
  CHECK(usage().live == 0);
  for (const Index bytes : usage().live_by_category) CHECK(bytes == 0);
}

TEST_CASE("memory: the peak is split by what was live when it was reached") {
  reset_peak();
  const Block weights(100, Category::parameters);
  { const Block big(1000, Category::activations); }
  { const Block small(500, Category::gradients); }
  const Usage now = usage();
  CHECK(now.peak == 1100);
  CHECK(at_peak(Category::parameters) == 100);
  CHECK(at_peak(Category::activations) == 1000);
  CHECK(at_peak(Category::gradients) == 0);
  CHECK(std::accumulate(now.at_peak.begin(), now.at_peak.end(), Index{0}) == now.peak);

  reset_peak();
  CHECK(usage().peak == 100);
  CHECK(at_peak(Category::activations) == 0);
}

TEST_CASE("memory: blocks are aligned, writable to the last byte and movable") {
  for (const Index bytes : {1, 63, 64, 65, 4097}) {
    Block block(bytes, Category::activations);
    CHECK(reinterpret_cast<std::uintptr_t>(block.data()) % 64 == 0);
    CHECK(block.bytes() == bytes);
    std::memset(block.data(), 0x5a, static_cast<std::size_t>(bytes));

    std::byte* data = block.data();
    Block other(8, Category::workspace);
    other = std::move(block);
    CHECK(other.data() == data);
    CHECK(usage().live == bytes);
    CHECK(live(Category::workspace) == 0);
  }
  CHECK(usage().live == 0);
}

TEST_CASE("memory: an empty block costs nothing") {
  const Block none;
  const Block empty(0, Category::activations);
  CHECK(empty.bytes() == 0);
  CHECK(usage().live == 0);
}

TEST_CASE("memory: a freed block serves the next request of its size" * doctest::skip(!kReuse)) {
  const std::byte* first = nullptr;
  {
    const Block block(100000, Category::activations);
    first = block.data();
  }
  const Block same(100000, Category::gradients);
  CHECK(same.data() == first);
  CHECK(live(Category::gradients) == 100000);
}

TEST_CASE("memory: blocks that nobody asks for again go back to the system") {
  release_cached();
  const auto held = [] {
    const auto info = ::mallinfo2();
    return static_cast<Index>(info.uordblks + info.hblkhd);
  };
  const Index before = held();
  for (Index i = 0; i < 100; ++i) {
    const Block block((Index{8} << 20) + i * 4096, Category::activations);
    // A quarter more than the highest peak, and 64 MiB; the blocks of this loop sum to 800 MiB.
    CHECK(held() - before < (Index{96} << 20));
  }
  release_cached();
  CHECK(held() - before < (Index{1} << 20));
}

TEST_CASE("memory: a request beyond the limit is an error with the requested and the live bytes") {
  const Block weights(Index{3} << 20, Category::parameters);
  const test::MemoryLimit limit_scope(Index{8} << 20);
  CHECK_THROWS_WITH_AS(Block(Index{6} << 20, Category::activations),
                       "out of memory: 6.0 MiB requested, 3.0 MiB live, limit 8.0 MiB", Error);
  // What was refused is not counted, and what fits to the byte is granted.
  CHECK(usage().live == Index{3} << 20);
  const Block rest(Index{5} << 20, Category::activations);
  CHECK(usage().live == limit());
}

TEST_CASE("memory: a size that no machine has is refused") {
  CHECK(limit() > 0);
  CHECK_THROWS_AS(Block(Index{1} << 62, Category::parameters), Error);
  CHECK(usage().live == 0);
}

TEST_CASE("memory: when the system has none left, that is an error too") {
  const test::MemoryLimit limit_scope(Index{1} << 60);
  CHECK_THROWS_WITH_AS(Block(Index{1} << 59, Category::activations),
                       "out of memory: 512.0 PiB requested, 0 B live, the system has none left", Error);
  CHECK(usage().live == 0);
}

TEST_CASE("memory: a category scope holds on its own thread until it ends") {
  CHECK(current_category() == Category::activations);
  {
    const CategoryScope outer(Category::parameters);
    {
      const CategoryScope inner(Category::optimizer);
      CHECK(current_category() == Category::optimizer);
    }
    CHECK(current_category() == Category::parameters);
    Category elsewhere = Category::workspace;
    std::thread([&] { elsewhere = current_category(); }).join();
    CHECK(elsewhere == Category::activations);
  }
  CHECK(current_category() == Category::activations);
}

TEST_CASE("memory: an observer sees every change while its scope lasts, the inner one of two alone") {
  std::vector<Index> outer_saw, inner_saw;
  const Block before(64, Category::parameters);
  {
    const ObserverScope outer([&](const Usage& now) { outer_saw.push_back(now.live); });
    const Block block(100, Category::activations);
    {
      const ObserverScope inner([&](const Usage& now) { inner_saw.push_back(now.live); });
      const Block hidden(1000, Category::workspace);
    }
  }
  const Block after(10, Category::activations);
  CHECK(outer_saw == std::vector<Index>{164, 64});
  CHECK(inner_saw == std::vector<Index>{1164, 164});
}

TEST_CASE("memory: threads may allocate and free at the same time") {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (Index i = 0; i < 500; ++i) {
        const Block block(64 * (i % 7) + t, Category::workspace);
        if (block.bytes() > 0) std::memset(block.data(), t, static_cast<std::size_t>(block.bytes()));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(usage().live == 0);
}

TEST_CASE("memory: bytes are shown in the unit that suits them") {
  CHECK(format_bytes(0) == "0 B");
  CHECK(format_bytes(1023) == "1023 B");
  CHECK(format_bytes(1024) == "1.0 KiB");
  CHECK(format_bytes(1536) == "1.5 KiB");
  CHECK(format_bytes((Index{1} << 20) - 1) == "1.0 MiB");
  CHECK(format_bytes(Index{12} << 30) == "12.0 GiB");
}

#ifndef NDEBUG
TEST_CASE("memory: in debug builds fresh memory is NaN, also when it was used before") {
  for (int round = 0; round < 2; ++round) {
    const Block block(5 * sizeof(float), Category::activations);
    auto* const floats = reinterpret_cast<float*>(block.data());
    for (int i = 0; i < 5; ++i) CHECK(floats[i] != floats[i]);
    std::fill_n(floats, 5, 1.0F);
  }
}
#endif

}  // namespace
}  // namespace tilegrad::memory
