#include "tilegrad/nn/safetensors.h"

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/nn/tiny.h"
#include "tests/temporary_folder.h"
#include "tilegrad/base/file.h"
#include "tilegrad/base/json.h"
#include "tilegrad/nn/weights.h"

using namespace tilegrad;
using namespace tilegrad::test;

namespace {

// A file that is gone at the end.
struct TemporaryFile {
  TemporaryFolder folder;
  std::string path = folder / "some.safetensors";

  void write(std::string_view content) const { std::ofstream(path, std::ios::binary) << content; }
};

std::string with_length(std::string_view header, std::uint64_t length) {
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file.append(header);
}

std::string bytes(std::string_view header, std::size_t data_bytes) {
  return with_length(header, header.size()) + std::string(data_bytes, '\x01');
}

// What load_safetensors says about these bytes, without the path.
std::string complaint(std::string_view content) {
  const TemporaryFile file;
  file.write(content);
  const std::string message = message_of([&] { nn::load_safetensors(file.path); });
  const std::string prefix = file.path + ": ";
  return message.starts_with(prefix) ? message.substr(prefix.size()) : message;
}

nn::Safetensors sample() {
  nn::Safetensors content;
  content.tensors["b"] = Tensor::from<float>({2, 3}, {1, 2, 3, 4, 5, -6});
  content.tensors["a.scalar"] = Tensor::from<double>({}, {0.1});
  content.tensors["c"] = Tensor::from<std::int32_t>({3}, {-1, 0, 7});
  content.tensors["half"] = Tensor::from<float>({2}, {1.5F, -2}).cast(Dtype::bf16);
  content.tensors["ieee half"] = Tensor::from<float>({2}, {1.5F, -65504}).cast(Dtype::f16);
  content.tensors["none"] = Tensor::empty({0, 4}, Dtype::f32);
  content.metadata["format"] = "a \"quoted\" \\ line\nand more";
  return content;
}

}  // namespace

TEST_CASE("safetensors: what is saved is loaded") {
  const TemporaryFile file;
  const nn::Safetensors content = sample();
  nn::save_safetensors(file.path, content);
  const nn::Safetensors loaded = nn::load_safetensors(file.path);
  CHECK(loaded.metadata == content.metadata);
  REQUIRE(loaded.tensors.size() == content.tensors.size());
  for (const auto& [name, tensor] : content.tensors) {
    CHECK(loaded.at(name, tensor.shape(), tensor.dtype()).dtype() == tensor.dtype());
    CHECK(distance(loaded.tensors.at(name), tensor) == 0);
  }
}

TEST_CASE("safetensors: equal content gives equal files, with the data at a multiple of 8") {
  const TemporaryFile file;
  nn::save_safetensors(file.path, sample());
  const std::string first = read_file(file.path);
  nn::save_safetensors(file.path, nn::load_safetensors(file.path));
  CHECK(read_file(file.path) == first);
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, first.data(), 8);
  CHECK(header_bytes % 8 == 0);
  CHECK(first.substr(8).starts_with(R"({"__metadata__":{)"));
}

TEST_CASE("safetensors: a file cut anywhere is an error") {
  const TemporaryFile file;
  nn::save_safetensors(file.path, sample());
  const std::string whole = read_file(file.path);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    CAPTURE(length);
    CHECK(!complaint(whole.substr(0, length)).empty());
  }
}

TEST_CASE("safetensors: a changed byte in the header loads or is an Error, and nothing else") {
  const TemporaryFile file;
  nn::save_safetensors(file.path, sample());
  const std::string whole = read_file(file.path);
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, whole.data(), 8);
  for (std::size_t i = 0; i < 8 + header_bytes; ++i) {
    for (const char c : {'\0', '9', '"', '[', '}', '-', '\xff'}) {
      std::string damaged = whole;
      damaged[i] = c;
      CHECK_NOTHROW(complaint(damaged));
    }
  }
}

TEST_CASE("safetensors: a header that is none is refused") {
  CHECK(complaint("") == "is truncated: 0 bytes are too few for a safetensors file");
  CHECK(complaint(with_length("{}", 3)) == "the header should be 3 bytes long, the file has 10");
  CHECK(complaint(with_length("{}", ~std::uint64_t{0})) ==
        "the header should be 18446744073709551615 bytes long, the file has 10");
  CHECK(complaint(bytes("{", 0)) == "the header is not JSON");
  CHECK(complaint(bytes("", 0)) == "the header is not a JSON object");
  CHECK(complaint(bytes("[]", 0)) == "the header is not a JSON object");
  CHECK(complaint(bytes("{} x", 0)) == "the header is not JSON");
  CHECK(complaint(bytes("{\"\xff\": 1}", 0)) == "the header is not JSON");
  CHECK(complaint(bytes("{\"a\":" + std::string(100'000, '['), 0)) == "the header is nested too deeply");
  CHECK(complaint(bytes(R"({"a":{"b":{"c":{"d":1}}}})", 0)) == "the header is nested too deeply");
  CHECK(complaint(bytes(R"({"a": 1})", 0)) == "tensor `a`: must have exactly dtype, shape and data_offsets");
  CHECK(complaint(bytes(R"({"__metadata__": 1})", 0)) == "__metadata__ is not an object");
  CHECK(complaint(bytes(R"({"__metadata__": {"k": 1}})", 0)) == "metadata `k` is not a string");
}

TEST_CASE("safetensors: what appears twice is refused") {
  const std::string entry = R"("a": {"dtype": "I32", "shape": [1], "data_offsets": [0, 4]})";
  CHECK(complaint(bytes("{" + entry + "}", 4)).empty());
  CHECK(complaint(bytes("{" + entry + ", " + entry + "}", 4)) == "the header has `a` twice");
  CHECK(complaint(bytes(R"({"a": {"dtype": "I32", "dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})",
                        4)) == "the header has `dtype` twice");
}

TEST_CASE("safetensors: a tensor that contradicts itself is refused") {
  const auto with = [](std::string_view dtype, std::string_view shape, std::string_view offsets) {
    return complaint(bytes(
        fmt::format(R"({{"a": {{"dtype": {}, "shape": {}, "data_offsets": {}}}}})", dtype, shape, offsets),
        24));
  };
  CHECK(with(R"("F32")", "[2, 3]", "[0, 24]").empty());
  CHECK(with(R"("I8")", "[2, 6]", "[0, 24]") ==
        "tensor `a`: dtype \"I8\" is not one of F32, F64, BF16, F16, I32, BOOL");
  CHECK(with("7", "[2, 6]", "[0, 24]") == "tensor `a`: dtype 7 is not one of F32, F64, BF16, F16, I32, BOOL");
  CHECK(with(R"("F32")", "6", "[0, 24]") == "tensor `a`: shape is not a list");
  CHECK(with(R"("F32")", "[-2, -3]", "[0, 24]") == "tensor `a`: a size in shape is not a natural number");
  CHECK(with(R"("F32")", "[2.5, 3]", "[0, 24]") == "tensor `a`: a size in shape is not a natural number");
  CHECK(with(R"("F32")", "[1e300]", "[0, 24]") == "tensor `a`: a size in shape is not a natural number");
  CHECK(with(R"("F32")", "[18446744073709551615]", "[0, 24]") ==
        "tensor `a`: a size in shape is not a natural number");
  CHECK(with(R"("F32")", "[4294967296, 4294967296]", "[0, 24]").starts_with("tensor `a`: "));
  CHECK(with(R"("F32")", "[4611686018427387904]", "[0, 24]").starts_with("tensor `a`: "));
  CHECK(with(R"("F32")", "[1, 1, 1, 1, 1, 1, 6]", "[0, 24]").starts_with("tensor `a`: "));
  CHECK(with(R"("F32")", "[2, 4]", "[0, 24]") ==
        "tensor `a`: F32 (2, 4) does not fill the bytes from 0 to 24");
  CHECK(with(R"("F32")", "[2, 3]", "[24, 0]") ==
        "tensor `a`: F32 (2, 3) does not fill the bytes from 24 to 0");
  CHECK(with(R"("F32")", "[2, 3]", "[0]") == "tensor `a`: data_offsets is not a pair");
  CHECK(with(R"("F32")", "[2, 3]", "[-1, 23]") == "tensor `a`: a data offset is not a natural number");
}

TEST_CASE("safetensors: data that overlaps, leaves gaps, is missing or left over is refused") {
  const auto two = [](int begin_a, int begin_b, std::size_t data) {
    return complaint(
        bytes(fmt::format(R"({{"a": {{"dtype": "I32", "shape": [2], "data_offsets": [{}, {}]}}, )"
                          R"("b": {{"dtype": "I32", "shape": [2], "data_offsets": [{}, {}]}}}})",
                          begin_a, begin_a + 8, begin_b, begin_b + 8),
              data));
  };
  CHECK(two(0, 8, 16).empty());
  CHECK(two(8, 0, 16).empty());
  CHECK(two(0, 4, 16) == "tensor `b` overlaps the one before it at byte 4");
  CHECK(two(0, 0, 16) == "tensor `b` overlaps the one before it at byte 0");
  CHECK(two(0, 12, 20) == "bytes 8 to 12 belong to no tensor");
  CHECK(two(4, 12, 20) == "bytes 0 to 4 belong to no tensor");
  CHECK(two(0, 8, 15) == "is truncated: the tensors need 16 bytes of data, there are 15");
  CHECK(two(0, 8, 17) == "has 1 bytes after the last tensor");
}

TEST_CASE("safetensors: a missing file is named") {
  CHECK(message_of([] { nn::load_safetensors("/nowhere/x.safetensors"); }) ==
        "/nowhere/x.safetensors: no such file");
}

TEST_CASE("safetensors: parameters are put and loaded by name, all or none") {
  nn::Transformer from(tiny_model_config(), RandomKey{1}), to(tiny_model_config(), RandomKey{2});
  nn::Safetensors content;
  nn::store_parameters(content, nn::parameters(from));
  const Tensor ids = random_tokens(1, 8, 11);
  const Tensor before = to(ids, {}).value();

  nn::Safetensors bad = content;
  bad.tensors.erase("norm.weight");
  CHECK(message_of([&] { nn::load_parameters(bad, nn::parameters(to)); }) ==
        "tensor `norm.weight` is missing");
  bad.tensors["norm.weight"] = Tensor::zeros({3}, Dtype::f64);
  CHECK(message_of([&] { nn::load_parameters(bad, nn::parameters(to)); }) ==
        "tensor `norm.weight` is f64 (3), not f64 (16)");
  bad = content;
  bad.tensors["extra"] = Tensor::zeros({3}, Dtype::f64);
  CHECK(message_of([&] { nn::load_parameters(bad, nn::parameters(to)); }) ==
        "tensor `extra` (3) is not one of the model's 24 parameters");
  CHECK(distance(to(ids, {}).value(), before) == 0);

  nn::load_parameters(content, nn::parameters(to));
  CHECK(distance(to(ids, {}).value(), from(ids, {}).value()) == 0);
  set_all(from.norm.weight, 0);  // a copy, not the same memory
  CHECK(to.norm.weight.value().at(0) == 1);
}

TEST_CASE("safetensors: damaged files are read or refused as the package of the format does") {
  const TemporaryFile file;
  Index read = 0, refused = 0;
  const auto check_mutant = [&](const nlohmann::ordered_json& mutant) {
    const std::string hex = mutant["file"];
    std::string content;
    for (std::size_t i = 0; i < hex.size(); i += 2) {
      content += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    write_file(file.path, content);
    const std::string message = message_of([&] { nn::load_safetensors(file.path); });
    CAPTURE(hex);
    CAPTURE(message);
    // The format's description wants a header that begins with {; the package also takes spaces before it.
    const bool begins_with_a_space = content.size() > 8 && content[8] == ' ';
    CHECK(message.empty() == (mutant["reads"].get<bool>() && !begins_with_a_space));
    ++(message.empty() ? read : refused);
    return true;
  };
  std::vector<std::string> warnings;
  read_json_lines(std::filesystem::path(TILEGRAD_TESTS_DIR) / "golden/safetensors_mutants.jsonl",
                  check_mutant, warnings);
  CHECK(warnings.empty());
  CHECK(read > 70);
  CHECK(refused > 200);
}
