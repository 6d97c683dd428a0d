#include "tilegrad/train/report/event_file.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>

#include "tilegrad/base/error.h"
#include "tilegrad/base/file.h"

namespace tilegrad::train {

namespace {

// The remainder of every byte, for the polynomial of CRC-32C, bit-reversed.
constexpr std::array<std::uint32_t, 256> kRemainders = [] {
  constexpr std::uint32_t kPolynomial = 0x82F63B78;
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    table[byte] = crc;
  }
  return table;
}();

// A number's bytes, the lowest first.
template <class T>
std::string little_endian(T value) {
  std::string bytes;
  for (std::size_t i = 0; i < sizeof(T); ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
  return bytes;
}

// --- protocol buffers: a field is its number and wire type, then its value ------------------------------

enum WireType : std::uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}

std::string tag(std::uint64_t number, WireType type) { return varint(number << 3 | type); }

std::string int_field(std::uint64_t number, std::uint64_t value) {
  return tag(number, kVarint) + varint(value);
}
std::string double_field(std::uint64_t number, double value) {
  return tag(number, kFixed64) + little_endian(std::bit_cast<std::uint64_t>(value));
}
std::string float_field(std::uint64_t number, float value) {
  return tag(number, kFixed32) + little_endian(std::bit_cast<std::uint32_t>(value));
}
std::string bytes_field(std::uint64_t number, std::string_view bytes) {
  return tag(number, kBytes) + varint(bytes.size()) + std::string(bytes);
}

// message Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5;
//                 SessionLog session_log = 7; }
std::string event(double wall_time, Index step, const std::string& content) {
  return double_field(1, wall_time) + int_field(2, static_cast<std::uint64_t>(step)) + content;
}
std::string file_version() { return bytes_field(3, "brain.Event:2"); }
// message SessionLog { SessionStatus status = 1; }, where 1 is START
std::string session_start() { return bytes_field(7, int_field(1, 1)); }
// message Summary { repeated Value value = 1; }, message Value { string tag = 1; float simple_value = 2; }
std::string summary(const std::vector<std::pair<std::string, double>>& scalars) {
  std::string values;
  for (const auto& [name, value] : scalars) {
    values += bytes_field(1, bytes_field(1, name) + float_field(2, static_cast<float>(value)));
  }
  return bytes_field(5, values);
}

}  // namespace

std::uint32_t masked_crc32c(std::string_view data) {
  std::uint32_t crc = ~std::uint32_t{0};
  for (const char c : data) crc = kRemainders[(crc ^ static_cast<unsigned char>(c)) & 0xFF] ^ (crc >> 8);
  return std::rotr(~crc, 15) + 0xA282EAD8;
}

EventFile::EventFile(const std::filesystem::path& folder, Index step, double wall_time)
    // Readers take the files of a folder in the order of their names.
    : path_(folder / fmt::format("events.out.tfevents.{:010}.tilegrad", step)) {
  make_folder(folder);
  out_.open(path_, std::ios::binary | std::ios::trunc);
  check(out_.is_open(), "{}: cannot be written: {}", path_.string(), std::strerror(errno));
  write_record(event(wall_time, 0, file_version()));
  if (step > 0) write_record(event(wall_time, step + 1, session_start()));
}

void EventFile::write_record(std::string_view event) {
  const std::string length = little_endian(std::uint64_t{event.size()});
  errno = 0;
  out_ << length << little_endian(masked_crc32c(length)) << event << little_endian(masked_crc32c(event))
       << std::flush;
  check(out_.good(), "{}: cannot be written: {}", path_.string(),
        errno != 0 ? std::strerror(errno) : "unknown reason");
}

void EventFile::write(Index step, double wall_time,
                      const std::vector<std::pair<std::string, double>>& scalars) {
  write_record(event(wall_time, step, summary(scalars)));
}

void EventFile::write(const StepReport& r, double wall_time) {
  write(r.step, wall_time,
        {{"train/loss", r.loss},
         {"train/learning_rate", r.lr},
         {"train/grad_norm", r.grad_norm},
         {"speed/ms_per_step", r.ms},
         {"speed/tokens_per_s", r.tokens_per_s},
         {"memory/peak_bytes", static_cast<double>(r.peak_bytes)}});
}

void EventFile::write(const EvaluationLine& e, double wall_time) {
  write(
      e.step, wall_time,
      {{"validation/loss", e.val_loss}, {"validation/accuracy", e.accuracy}, {"validation/exact", e.exact}});
}

void export_events(const std::filesystem::path& folder, const std::vector<LoadedRun>& runs) {
  for (const LoadedRun& run : runs) {
    double time = run.ended;
    for (const StepReport& s : run.metrics.steps) time -= std::isfinite(s.ms) ? s.ms / 1e3 : 0;
    EventFile file(folder / run.name, 0, time);
    auto evaluation = run.metrics.evaluations.begin();
    for (const StepReport& s : run.metrics.steps) {
      time += std::isfinite(s.ms) ? s.ms / 1e3 : 0;
      file.write(s, time);
      for (; evaluation != run.metrics.evaluations.end() && evaluation->step <= s.step; ++evaluation) {
        file.write(*evaluation, time);
      }
    }
  }
}

double wall_time_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace tilegrad::train
