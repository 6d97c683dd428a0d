#include <stdlib.h>

#include <string>

#include "tests/fuzz/target.h"

namespace tilegrad::fuzz {

namespace {

struct Scratch {
  Scratch() {
    std::string name =
        std::filesystem::exists("/dev/shm") ? "/dev/shm/tilegrad-fuzz-XXXXXX" : "/tmp/tilegrad-fuzz-XXXXXX";
    check(::mkdtemp(name.data()) != nullptr, "{}: cannot be made", name);
    path = name;
  }
  ~Scratch() { std::filesystem::remove_all(path); }

  std::filesystem::path path;
};

}  // namespace

const std::filesystem::path& scratch_folder() {
  static const Scratch scratch;
  return scratch.path;
}

}  // namespace tilegrad::fuzz
