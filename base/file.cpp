#include "tilegrad/base/file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tilegrad/base/error.h"

namespace tilegrad {

namespace {

// An open file descriptor that is closed whatever happens.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return fd_; }
  bool close() { return ::close(std::exchange(fd_, -1)) == 0; }

 private:
  int fd_;
};

bool write_all(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    content.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  std::error_code ignored;
  check(std::filesystem::exists(path, ignored), "{}: no such file", path.string());
  check(!std::filesystem::is_directory(path, ignored), "{}: is a folder, not a file", path.string());
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  check(file.get() >= 0, "{}: cannot be opened: {}", path.string(), std::strerror(errno));
  std::string content;
  std::array<char, 1 << 16> piece;
  for (;;) {
    const ssize_t n = ::read(file.get(), piece.data(), piece.size());
    if (n < 0 && errno == EINTR) continue;
    check(n >= 0, "{}: cannot be read: {}", path.string(), std::strerror(errno));
    if (n == 0) return content;
    content.append(piece.data(), static_cast<std::size_t>(n));
  }
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  const std::string temporary = path.string() + ".tmp";
  const auto give_up = [&] {
    const int error = errno;
    ::unlink(temporary.c_str());
    fail("{}: cannot be written: {}", path.string(), std::strerror(error));
  };
  Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (file.get() < 0 || !write_all(file.get(), content) || ::fsync(file.get()) != 0 || !file.close() ||
      ::rename(temporary.c_str(), path.c_str()) != 0) {
    give_up();
  }
}

void make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  check(!error, "{}: cannot be made: {}", folder.string(), error.message());
  check(::access(folder.c_str(), W_OK) == 0, "{}: cannot be written to: {}", folder.string(),
        std::strerror(errno));
}

}  // namespace tilegrad
