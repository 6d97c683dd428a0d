// OpenBLAS allocates memory while it is loaded, and hangs if there is too little address space (`ulimit -v`). So this
// checks before any library is initialised: functions in .preinit_array run before everything else. For the same reason
// it makes nothing but system calls.
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace {

constexpr rlim_t kMiB = 1 << 20;
constexpr rlim_t kForOneThread = 128 * kMiB;  // OpenBLAS's BUFFER_SIZE on x86-64
constexpr rlim_t kForTheRest = 96 * kMiB;     // measured: program and libraries

// A message in a buffer of its own.
class Line {
 public:
  Line& operator<<(std::string_view text) {
    std::memcpy(end_, text.data(), text.size());
    end_ += text.size();
    return *this;
  }
  Line& operator<<(rlim_t number) {
    end_ = std::to_chars(end_, text_.data() + text_.size(), number).ptr;
    return *this;
  }
  void write() const {
    [[maybe_unused]] const auto n = ::write(STDERR_FILENO, text_.data(), end_ - text_.data());
  }

 private:
  std::array<char, 256> text_;
  char* end_ = text_.data();
};

// How many threads OpenBLAS makes room for.
rlim_t threads(char** environment) {
  cpu_set_t processors;
  rlim_t count = sched_getaffinity(0, sizeof(processors), &processors) == 0 ? CPU_COUNT(&processors) : 1;
  constexpr std::string_view kName = "OMP_NUM_THREADS=";
  for (; *environment != nullptr; ++environment) {
    const std::string_view entry = *environment;
    rlim_t asked = 0;
    if (entry.substr(0, kName.size()) != kName) continue;
    std::from_chars(entry.data() + kName.size(), entry.data() + entry.size(), asked);
    if (asked > 0 && asked < count) count = asked;
  }
  return count;
}

void check_address_space(int, char**, char** environment) {
  rlimit limit = {};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  const rlim_t needed = kForTheRest + threads(environment) * kForOneThread;
  if (limit.rlim_cur >= needed) return;
  Line line;
  line << "tilegrad: the address space is limited to " << limit.rlim_cur / kMiB
       << " MiB (ulimit -v), OpenBLAS needs " << needed / kMiB
       << " MiB to start; fewer threads (OMP_NUM_THREADS) need less\n";
  line.write();
  _exit(EXIT_FAILURE);
}

using Initialiser = void (*)(int, char**, char**);
[[gnu::section(".preinit_array"), gnu::used]] const Initialiser first_of_all = check_address_space;

}  // namespace
