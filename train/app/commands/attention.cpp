#include <algorithm>
#include <memory>
#include <optional>

#include "tilegrad/autograd/ops.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/nn/safetensors.h"
#include "tilegrad/train/app/choice.h"
#include "tilegrad/train/app/command.h"
#include "tilegrad/train/app/decimal.h"
#include "tilegrad/train/app/threads.h"

namespace tilegrad::train {

namespace {

struct AttentionCommand {
  explicit AttentionCommand(CLI::App& app) {
    app.option_defaults()->take_last();
    app.add_option("--in", in,
                   "safetensors file with q, k, v, and optionally dout, dlse, bias, mask, sinks, alibi, "
                   "k_lengths, cu_q and cu_k")
        ->required();
    app.add_option("--out", out, "safetensors file for out, lse and, if there is a dout, the gradients")
        ->required();
    add_choice<AttentionKernel>(app, "--attention,--kernel", kernel, "naive or flash (default)");
    app.add_flag("--causal", options.causal, "mask the keys after a query's own position");
    add_choice<Align>(app, "--align", options.align,
                      "where the diagonal lies if Tq and Tk differ: bottom_right (default) or top_left");
    app.add_option("--window-left", options.window.left, "visible keys before a query's own position")
        ->transform(decimal<Index>());
    app.add_option("--window-right", options.window.right, "visible keys after it")
        ->transform(decimal<Index>());
    app.add_option("--softcap", options.softcap, "bounds the scores smoothly");
    app.add_option("--scale", options.scale, "factor of the scores; 1/sqrt(D) unless given");
    app.add_option("--dropout", options.dropout, "probability of dropping a weight");
    app.add_option("--seed", options.dropout_key.value, "seed of the dropout mask")
        ->transform(decimal<std::uint64_t>())
        ->capture_default_str();
    add_threads(app, threads);
    add_choice<Dtype>(app, "--dtype", dtype, "convert the input to f32 or f64");
  }

  std::string in, out;
  AttentionKernel kernel = AttentionKernel::flash;
  AttentionOptions options = {.dropout_key = RandomKey{1}};
  int threads = 0;
  std::optional<Dtype> dtype;
};

// What the file may hold.
enum class Content { numbers, integers, truths };

struct KnownTensor {
  std::string_view name;
  Content content = Content::numbers;
};
constexpr KnownTensor kKnown[] = {{"q"},
                                  {"k"},
                                  {"v"},
                                  {"dout"},
                                  {"dlse"},
                                  {"mask", Content::truths},
                                  {"bias"},
                                  {"sinks"},
                                  {"k_lengths", Content::integers},
                                  {"alibi"},
                                  {"cu_q", Content::integers},
                                  {"cu_k", Content::integers}};

void check_dtype(const std::string& where, Content content, Dtype dtype) {
  switch (content) {
    case Content::numbers:
      return check(dtype == Dtype::f32 || dtype == Dtype::f64, "{} is {}, not f32 or f64", where, dtype);
    case Content::integers:
      return check(dtype == Dtype::i32, "{} is {}, not i32", where, dtype);
    case Content::truths:
      return check(dtype == Dtype::u8, "{} is {}, not BOOL", where, dtype);
  }
}

// The operands of one call by name.
nn::Safetensors load_operands(const std::string& file, std::optional<Dtype> dtype) {
  nn::Safetensors content = nn::load_safetensors(file);
  for (const char* name : {"q", "k", "v"}) {
    check(content.tensors.contains(name), "{}: tensor `{}` is missing", file, name);
  }
  check(!content.tensors.contains("dlse") || content.tensors.contains("dout"),
        "{}: dlse is given without dout", file);
  const Tensor& q = content.tensors.at("q");
  check(q.size() > 0, "{}: tensor `q` is {}, it has no elements", file, q.shape());
  const Dtype wanted = dtype.value_or(q.dtype());
  for (auto& [name, tensor] : content.tensors) {
    const auto* known = std::find_if(std::begin(kKnown), std::end(kKnown),
                                     [&n = name](const KnownTensor& k) { return k.name == n; });
    const std::string where = fmt::format("{}: tensor `{}`", file, name);
    check(known != std::end(kKnown), "{} is not an operand of attention", where);
    check_dtype(where, known->content, tensor.dtype());
    if (known->content != Content::numbers) continue;
    if (dtype) tensor = tensor.cast(*dtype);
    check(tensor.dtype() == wanted, "{} is {} and q is {}; --dtype would convert both", where, tensor.dtype(),
          wanted);
  }
  return content;
}

// The operand of that name, undefined if the file has none.
Tensor operand(const nn::Safetensors& content, const std::string& name) {
  const auto found = content.tensors.find(name);
  return found == content.tensors.end() ? Tensor() : found->second;
}

nn::Safetensors compute(const nn::Safetensors& in, AttentionKernel kernel, const AttentionOptions& options) {
  std::map<std::string, Var> leaves;
  for (const char* name : {"q", "k", "v", "bias", "sinks"}) {
    if (in.tensors.contains(name)) leaves[name] = Var::leaf(in.tensors.at(name));
  }
  const AttentionExtras extras = {.bias = leaves["bias"],
                                  .sinks = leaves["sinks"],
                                  .mask = operand(in, "mask"),
                                  .alibi = operand(in, "alibi"),
                                  .k_lengths = operand(in, "k_lengths"),
                                  .cu_q = operand(in, "cu_q"),
                                  .cu_k = operand(in, "cu_k")};
  Tape tape;
  const AttentionResult y =
      attention_with_lse(leaves["q"], leaves["k"], leaves["v"], kernel, options, extras);
  nn::Safetensors result;
  result.tensors = {{"out", y.out.value()}, {"lse", y.lse.value()}};
  if (!in.tensors.contains("dout")) return result;

  // dout and dlse are the gradients of ⟨out, dout⟩ + ⟨lse, dlse⟩, so backward starts there.
  Var root = sum(mul(y.out, in.at("dout", y.out.shape(), y.out.dtype())));
  if (in.tensors.contains("dlse")) {
    root = add(root, sum(mul(y.lse, in.at("dlse", y.lse.shape(), y.lse.dtype()))));
  }
  tape.backward(root);
  for (const auto& [name, leaf] : leaves) {
    if (leaf.tracked()) result.tensors["d" + name] = leaf.grad();
  }
  return result;
}

int attend(const AttentionCommand& command, const Console& console) {
  use_threads(command.threads);
  const nn::Safetensors operands = load_operands(command.in, command.dtype);
  const nn::Safetensors result = compute(operands, command.kernel, command.options);
  nn::save_safetensors(command.out, result);
  for (const auto& [name, tensor] : result.tensors) {
    console.out << fmt::format("{:<6} {} {}\n", name, tensor.dtype(), tensor.shape());
  }
  console.out << std::flush;
  return kSuccess;
}

}  // namespace

Command add_attention_command(CLI::App& program) {
  CLI::App* app = program.add_subcommand("attention", "attention on the tensors of a file, with gradients");
  const auto command = std::make_shared<AttentionCommand>(*app);
  return {app, [command](const Console& console) { return attend(*command, console); }};
}

}  // namespace tilegrad::train
