#include "openmp.h"

#include <cstdint>

#include "tilegrad/base/error.h"
#include "tilegrad/kernels/parallel.h"

namespace tilegrad::python {

namespace nb = nanobind;

namespace {

// PyTorch brings an OpenMP runtime of its own under another file name, so linking cannot reach it, but its addresses
// can. GOMP_parallel is what GCC compiles `#pragma omp parallel` to; the runtimes of LLVM and Intel have it as well.
struct OpenMp {
  void (*parallel)(void (*function)(void*), void* data, unsigned threads, unsigned flags);
  int (*thread_number)();
  int (*max_threads)();
};
OpenMp openmp;

struct Share {
  void (*share)(void* context, int thread);
  void* context;
};

void run(int team, void (*share)(void* context, int thread), void* context) {
  Share data = {share, context};
  openmp.parallel(
      [](void* shared) {
        const Share& mine = *static_cast<const Share*>(shared);
        mine.share(mine.context, openmp.thread_number());
      },
      &data, static_cast<unsigned>(team), 0);
}

int max_threads() { return openmp.max_threads(); }

constexpr kernels::Runner kRunner = {.threads = max_threads, .run = run};

template <class Function>
Function* at(std::uintptr_t address) {
  return reinterpret_cast<Function*>(address);
}

void run_on_openmp(std::uintptr_t parallel, std::uintptr_t thread_number, std::uintptr_t max) {
  check(parallel != 0 && thread_number != 0 && max != 0, "run_on_openmp: an address is 0");
  kernels::set_runner(nullptr);
  openmp = {at<void(void (*)(void*), void*, unsigned, unsigned)>(parallel), at<int()>(thread_number),
            at<int()>(max)};
  kernels::set_runner(&kRunner);
}

}  // namespace

void add_openmp(nb::module_& module) {
  module.def("run_on_openmp", &run_on_openmp, nb::arg("parallel"), nb::arg("thread_number"),
             nb::arg("max_threads"));
  module.def("run_on_own_threads", [] { kernels::set_runner(nullptr); });
}

}  // namespace tilegrad::python
