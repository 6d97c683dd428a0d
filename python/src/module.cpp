#include <nanobind/nanobind.h>

#include "attention.h"
#include "openmp.h"
#include "program.h"
#include "tensors.h"
#include "tilegrad/base/error.h"
#include "tilegrad/kernels/parallel.h"
#include "transformer.h"

/// tilegrad._core: what the Python package stands on. It takes NumPy arrays, outputs included; the package is what
/// people call.
NB_MODULE(_core, module) {
  using namespace tilegrad;
  namespace nb = nanobind;
  nb::exception<Error>(module, "Error", PyExc_RuntimeError);
  module.def("threads", &kernels::threads);
  module.def("set_threads", &kernels::set_threads, nb::arg("count"));
  python::add_attention(module);
  python::add_openmp(module);
  python::add_tensors(module);
  python::add_transformer(module);
  python::add_program(module);
}
