#include "tensors.h"

#include <cstdint>
#include <string>

#include "tilegrad/base/error.h"

namespace tilegrad::python {

namespace nb = nanobind;

namespace {

// The layout is that of DLPack 1.x. Of the functions, only the one that lends a tensor out is called.
struct ExchangeTable {
  std::uint32_t major, minor;
  const ExchangeTable* previous;  // of an older version
  void (*allocate)();
  void (*share)();
  void (*adopt)();
  int (*lend)(void* object, nb::dlpack::dltensor* to);
};

// Both are set at most once, with the interpreter lock held, and stay.
PyTypeObject* tensor_type = nullptr;
decltype(ExchangeTable::lend) lend = nullptr;

std::string first_line_of_python_error() {
  const nb::python_error error;  // takes it from the interpreter
  const std::string text = nb::str(error.value()).c_str();
  return text.substr(0, text.find('\n'));
}

bool read_tensors_of(const nb::type_object& type, nb::handle capsule) {
  if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return false;
  const void* found = PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api");
  const auto* table = static_cast<const ExchangeTable*>(found);
  while (table != nullptr && table->major != 1) table = table->previous;
  if (table == nullptr || table->lend == nullptr) return false;
  lend = table->lend;
  if (tensor_type == nullptr) tensor_type = reinterpret_cast<PyTypeObject*>(type.inc_ref().ptr());
  return true;
}

}  // namespace

std::optional<nb::dlpack::dltensor> tensor_of(nb::handle object, std::string_view name) {
  if (tensor_type == nullptr || !PyObject_TypeCheck(object.ptr(), tensor_type)) return std::nullopt;
  nb::dlpack::dltensor tensor;
  if (lend(object.ptr(), &tensor) != 0)
    fail("attention: {} has no memory to read: {}", name, first_line_of_python_error());
  check(tensor.device.device_type == nb::device::cpu::value, "attention: {} is not on the CPU", name);
  return tensor;
}

void add_tensors(nb::module_& module) {
  module.def("read_tensors_of", &read_tensors_of, nb::arg("type"), nb::arg("exchange_api").none());
}

}  // namespace tilegrad::python
