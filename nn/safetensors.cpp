#include "tilegrad/nn/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <vector>

#include "tilegrad/base/file.h"

namespace tilegrad::nn {

namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the file format is little-endian");

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kLongestHeader = 100'000'000;  // what the format allows

struct DtypeName {
  Dtype dtype;
  std::string_view name;
};
constexpr DtypeName kDtypes[] = {{Dtype::f32, "F32"}, {Dtype::f64, "F64"}, {Dtype::bf16, "BF16"},
                                 {Dtype::f16, "F16"}, {Dtype::i32, "I32"}, {Dtype::u8, "BOOL"}};

std::string_view file_name(Dtype dtype) {
  return std::find_if(std::begin(kDtypes), std::end(kDtypes),
                      [&](const DtypeName& d) { return d.dtype == dtype; })
      ->name;
}

// The bytes of a tensor, whatever its dtype.
std::span<const char> bytes(const Tensor& t) {
  const auto of = [&](auto elements) {
    return std::span<const char>(reinterpret_cast<const char*>(elements.data()), elements.size_bytes());
  };
  switch (t.dtype()) {
    case Dtype::f32:
      return of(t.view<float>());
    case Dtype::f64:
      return of(t.view<double>());
    case Dtype::bf16:
      return of(t.view<bf16>());
    case Dtype::f16:
      return of(t.view<f16>());
    case Dtype::i32:
      return of(t.view<std::int32_t>());
    case Dtype::u8:
      return of(t.view<std::uint8_t>());
  }
  return {};
}

void fill_bytes(Tensor& t, std::string_view from) {
  const auto into = [&](auto elements) {
    if (!from.empty()) std::memcpy(elements.data(), from.data(), from.size());
  };
  switch (t.dtype()) {
    case Dtype::f32:
      return into(t.mut<float>());
    case Dtype::f64:
      return into(t.mut<double>());
    case Dtype::bf16:
      return into(t.mut<bf16>());
    case Dtype::f16:
      return into(t.mut<f16>());
    case Dtype::i32:
      return into(t.mut<std::int32_t>());
    case Dtype::u8:
      return into(t.mut<std::uint8_t>());
  }
}

// Where one tensor lies in the data part of the file.
struct Entry {
  std::string name;
  Dtype dtype;
  Shape shape;
  Index begin, end;
};

// A number that can be a size or an offset. The check is on the value as it stands in the file, since a JSON
// library would convert what does not fit.
Index natural(const json& value, const std::string& where, std::string_view what) {
  check(value.is_number_unsigned() && value.get<std::uint64_t>() <= std::uint64_t{1} << 62,
        "{}: {} is not a natural number", where, what);
  return value.get<Index>();
}

Shape parse_shape(const json& value, const std::string& where) {
  check(value.is_array(), "{}: shape is not a list", where);
  std::vector<Index> dims;
  for (const json& dim : value) dims.push_back(natural(dim, where, "a size in shape"));
  try {
    return Shape(std::span<const Index>(dims));
  } catch (const Error& error) {
    fail("{}: {}", where, error.what());
  }
}

Entry parse_entry(const std::string& name, const json& value, const std::string& file) {
  const std::string where = fmt::format("{}: tensor `{}`", file, name);
  check(value.is_object() && value.size() == 3 && value.contains("dtype") && value.contains("shape") &&
            value.contains("data_offsets"),
        "{}: must have exactly dtype, shape and data_offsets", where);
  const json& dtype = value["dtype"];
  const auto known = std::find_if(std::begin(kDtypes), std::end(kDtypes), [&](const DtypeName& d) {
    return dtype.is_string() && dtype.get_ref<const std::string&>() == d.name;
  });
  check(known != std::end(kDtypes), "{}: dtype {} is not one of F32, F64, BF16, F16, I32, BOOL", where,
        dtype.dump(-1, ' ', true, json::error_handler_t::replace));
  const json& offsets = value["data_offsets"];
  check(offsets.is_array() && offsets.size() == 2, "{}: data_offsets is not a pair", where);
  Entry entry = {.name = name,
                 .dtype = known->dtype,
                 .shape = parse_shape(value["shape"], where),
                 .begin = natural(offsets[0], where, "a data offset"),
                 .end = natural(offsets[1], where, "a data offset")};
  Index size = 0;
  check(!__builtin_mul_overflow(entry.shape.size(), bytes_of(entry.dtype), &size) &&
            entry.begin <= entry.end && entry.end - entry.begin == size,
        "{}: {} {} does not fill the bytes from {} to {}", where, file_name(entry.dtype), entry.shape,
        entry.begin, entry.end);
  return entry;
}

// The header as JSON. Two entries with the same name are an error, which a JSON library would let pass.
json parse_header(std::string_view text, const std::string& file) {
  check(text.starts_with('{'), "{}: the header is not a JSON object", file);
  constexpr std::size_t kDeepest = 3;                     // the numbers of a shape
  std::array<std::set<std::string>, kDeepest + 2> names;  // seen so far in the object at each depth
  const auto inspect = [&](int nesting, json::parse_event_t event, json& parsed) {
    const auto depth = static_cast<std::size_t>(nesting);
    check(depth <= kDeepest, "{}: the header is nested too deeply", file);
    if (event == json::parse_event_t::object_start) names[depth + 1].clear();
    if (event != json::parse_event_t::key) return true;
    const auto& name = parsed.get_ref<const std::string&>();
    check(names[depth].insert(name).second, "{}: the header has `{}` twice", file, name);
    return true;
  };
  json header;
  try {
    header = json::parse(text, inspect);
  } catch (const json::exception&) {
    fail("{}: the header is not JSON", file);
  }
  return header;
}

// Every byte of the data part belongs to exactly one tensor.
void check_layout(std::vector<Entry>& entries, Index data_bytes, const std::string& file) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  Index covered = 0;
  for (const Entry& entry : entries) {
    check(entry.begin >= covered, "{}: tensor `{}` overlaps the one before it at byte {}", file, entry.name,
          entry.begin);
    check(entry.begin == covered, "{}: bytes {} to {} belong to no tensor", file, covered, entry.begin);
    covered = entry.end;
  }
  check(covered <= data_bytes, "{}: is truncated: the tensors need {} bytes of data, there are {}", file,
        covered, data_bytes);
  check(covered == data_bytes, "{}: has {} bytes after the last tensor", file, data_bytes - covered);
}

}  // namespace

const Tensor& Safetensors::at(const std::string& name, const Shape& shape, Dtype dtype) const {
  const auto found = tensors.find(name);
  check(found != tensors.end(), "tensor `{}` is missing", name);
  const Tensor& t = found->second;
  check(t.shape() == shape && t.dtype() == dtype, "tensor `{}` is {} {}, not {} {}", name, t.dtype(),
        t.shape(), dtype, shape);
  return t;
}

Safetensors load_safetensors(const std::filesystem::path& path) {
  const std::string file = path.string();
  const std::string content = read_file(path);
  check(content.size() >= kLengthBytes, "{}: is truncated: {} bytes are too few for a safetensors file", file,
        content.size());
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, content.data(), kLengthBytes);
  check(header_bytes <= kLongestHeader && header_bytes <= content.size() - kLengthBytes,
        "{}: the header should be {} bytes long, the file has {}", file, header_bytes, content.size());
  const std::string_view text = std::string_view(content).substr(kLengthBytes, header_bytes);
  const std::string_view data = std::string_view(content).substr(kLengthBytes + header_bytes);

  Safetensors result;
  std::vector<Entry> entries;
  const json header = parse_header(text, file);
  for (const auto& [name, value] : header.items()) {
    if (name != "__metadata__") {
      entries.push_back(parse_entry(name, value, file));
      continue;
    }
    check(value.is_object(), "{}: __metadata__ is not an object", file);
    for (const auto& [key, entry] : value.items()) {
      check(entry.is_string(), "{}: metadata `{}` is not a string", file, key);
      result.metadata[key] = entry.get<std::string>();
    }
  }
  check_layout(entries, std::ssize(data), file);
  for (const Entry& entry : entries) {
    Tensor t = Tensor::empty(entry.shape, entry.dtype);
    fill_bytes(t, data.substr(entry.begin, static_cast<std::size_t>(entry.end - entry.begin)));
    result.tensors[entry.name] = t;
  }
  return result;
}

void save_safetensors(const std::filesystem::path& path, const Safetensors& content) {
  json header = json::object();
  if (!content.metadata.empty()) header["__metadata__"] = content.metadata;
  Index offset = 0;
  for (const auto& [name, t] : content.tensors) {
    const auto dims = t.shape().dims();
    header[name] = {{"dtype", file_name(t.dtype())},
                    {"shape", std::vector<Index>(dims.begin(), dims.end())},
                    {"data_offsets", {offset, offset + t.bytes()}}};
    offset += t.bytes();
  }
  std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the data begins at a multiple of 8
  const std::uint64_t header_bytes = text.size();
  std::string file(reinterpret_cast<const char*>(&header_bytes), kLengthBytes);
  file.reserve(kLengthBytes + text.size() + static_cast<std::size_t>(offset));
  file += text;
  for (const auto& [name, t] : content.tensors) file.append(bytes(t).data(), bytes(t).size());
  write_file(path, file);
}

}  // namespace tilegrad::nn
