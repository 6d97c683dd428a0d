#include <doctest/doctest.h>

#include "tilegrad/train/measure/speed.h"
#include "tilegrad/train/measure/system.h"

using namespace tilegrad;

TEST_CASE("machine: speeds and sizes are those of some machine") {
  CHECK(fma_gflops<float>() > 0);
  CHECK(fma_gflops<double>() > 0);
  CHECK(read_bandwidth(Index{1} << 20) > 0);
  CHECK(l2_bytes() >= Index{64} << 10);
  CHECK(l2_bytes() % 1024 == 0);
  CHECK(installed_memory() > l2_bytes());
  CHECK_FALSE(processor_name().empty());
}
