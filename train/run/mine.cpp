#include "tilegrad/train/run/mine.h"

#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <memory>
#include <span>

#include "tilegrad/autograd/saved.h"
#include "tilegrad/autograd/tape.h"
#include "tilegrad/base/error.h"
#include "tilegrad/base/process.h"
#include "tilegrad/train/run/mine_abi.h"

namespace tilegrad::train {

namespace {

namespace fs = std::filesystem;

// The functions of one course. It stays loaded until the program ends: nodes of a tape may refer to it.
struct Library {
  decltype(&tilegrad_mine_forward) forward;
  decltype(&tilegrad_mine_backward) backward;
  decltype(&tilegrad_mine_checkpoint_forward) checkpoint_forward;
  decltype(&tilegrad_mine_checkpoint_backward) checkpoint_backward;
  decltype(&tilegrad_mine_checkpoint_free) checkpoint_free;
};

Library load(const fs::path& folder) {
  check(fs::exists(folder / "learn") && fs::is_directory(folder / ".learn"),
        "mine: {} holds no course; `./dev learn start DIR` sets one up", folder.string());
  const fs::path program = fs::absolute(folder / "learn"),
                 object = fs::absolute(folder / ".learn" / "mine.so");
  check(run_child(program, {"build"}).exit_code == 0, "mine: the exercises in {} could not be built",
        folder.string());
  void* const handle = dlopen(object.c_str(), RTLD_NOW | RTLD_LOCAL);
  check(handle != nullptr, "mine: {}", handle == nullptr ? dlerror() : "");
  Library library = {};
  const auto find = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    check(function != nullptr, "mine: {} lacks {}", object.string(), name);
  };
  find("tilegrad_mine_forward", library.forward);
  find("tilegrad_mine_backward", library.backward);
  find("tilegrad_mine_checkpoint_forward", library.checkpoint_forward);
  find("tilegrad_mine_checkpoint_backward", library.checkpoint_backward);
  find("tilegrad_mine_checkpoint_free", library.checkpoint_free);
  return library;
}

const Library& library_of(const fs::path& folder) {
  static std::map<fs::path, Library> loaded;
  const auto found = loaded.find(folder);
  return found != loaded.end() ? found->second : loaded.emplace(folder, load(folder)).first->second;
}

void check_mine(const char* complaint) {
  check(complaint == nullptr, "mine: {}", complaint == nullptr ? "" : complaint);
}

// The learner computes in double.
Tensor widened(const Tensor& t) { return t.cast(Dtype::f64); }
Tensor doubles(const Shape& shape) { return Tensor::empty(shape, Dtype::f64); }
const double* numbers(const Tensor& t) { return t.view<double>().data(); }
double* numbers(Tensor& t) { return t.mut<double>().data(); }

// --- attention ---

// Offsets of sequence b in tensors like q, like k, and in lse.
struct Place {
  Index q, k, lse;
};
Place place_of(const TilegradMineShape& s, Index b) {
  return {b * s.tq * s.heads * s.dim, b * s.tk * s.kv_heads * s.dim, b * s.heads * s.tq};
}

struct MineAttentionRule {
  static constexpr std::string_view name = "attention by mine";
  const Library* library;
  TilegradMineShape shape;
  Saved q, k, v;
  Saved out, lse;  // in double, as the learner left them

  void backward(const Tensor& dout, InputGrads& dx) {
    const Tensor dout64 = widened(dout), q64 = widened(q.get(name, "q")), k64 = widened(k.get(name, "k")),
                 v64 = widened(v.get(name, "v"));
    const Tensor &out64 = out.get(name, "out"), &lse64 = lse.get(name, "lse");
    Tensor dq = doubles(q64.shape()), dk = doubles(k64.shape()), dv = doubles(v64.shape());
    for (Index b = 0; b < q64.dim(0); ++b) {
      const Place at = place_of(shape, b);
      check_mine(library->backward(&shape, numbers(dout64) + at.q, numbers(q64) + at.q, numbers(k64) + at.k,
                                   numbers(v64) + at.k, numbers(out64) + at.q, numbers(lse64) + at.lse,
                                   numbers(dq) + at.q, numbers(dk) + at.k, numbers(dv) + at.k));
    }
    if (dx.needs(0)) dx.add(0, dq.cast(dout.dtype()));
    if (dx.needs(1)) dx.add(1, dk.cast(dout.dtype()));
    if (dx.needs(2)) dx.add(2, dv.cast(dout.dtype()));
  }
};

Var attention_by(const Library& library, const Var& q, const Var& k, const Var& v) {
  const TilegradMineShape shape = {.tq = static_cast<int>(q.dim(1)),
                                   .tk = static_cast<int>(k.dim(1)),
                                   .heads = static_cast<int>(q.dim(2)),
                                   .kv_heads = static_cast<int>(k.dim(2)),
                                   .dim = static_cast<int>(q.dim(3))};
  const Tensor q64 = widened(q.value()), k64 = widened(k.value()), v64 = widened(v.value());
  Tensor out = doubles(q.shape()), lse = doubles({q.dim(0), q.dim(2), q.dim(1)});
  for (Index b = 0; b < q.dim(0); ++b) {
    const Place at = place_of(shape, b);
    check_mine(library.forward(&shape, numbers(q64) + at.q, numbers(k64) + at.k, numbers(v64) + at.k,
                               numbers(out) + at.q, numbers(lse) + at.lse));
  }
  return record(out.cast(q.dtype()), {q, k, v}, [&] {
    return MineAttentionRule{.library = &library,
                             .shape = shape,
                             .q = Saved(q),
                             .k = Saved(k),
                             .v = Saved(v),
                             .out = Saved(Var(out)),
                             .lse = Saved(Var(lse))};
  });
}

// --- checkpoint ---

// One run of a part that was recorded, on a tape of its own.
struct Recorded {
  explicit Recorded(Index& alive) : alive_(alive) { ++alive_; }
  ~Recorded() { --alive_; }
  Recorded(const Recorded&) = delete;
  Recorded& operator=(const Recorded&) = delete;

  Tape tape;
  Var x, y;

 private:
  Index& alive_;
};

// The part of the model, as the learner's checkpoint calls it.
struct Part {
  nn::KeyedFunction fn;
  RandomKey key;
  Shape shape;  // of x
  Dtype dtype;
  std::uint64_t keys = 0;  // given out
  Index recorded = 0;      // runs that somebody keeps

  // The learner's numbers, in the type of the model.
  Tensor tensor(const double* x) const {
    const auto size = static_cast<std::size_t>(shape.size());
    return Tensor::from<double>(shape, std::span<const double>(x, size)).cast(dtype);
  }

  static void* forward(void* context, const double* x, std::uint64_t key, int keep, double* y) {
    Part& part = *static_cast<Part*>(context);
    if (keep == 0) {
      const Tape::Pause pause;
      std::ranges::copy(widened(part.fn(Var(part.tensor(x)), RandomKey{key}).value()).view<double>(), y);
      return nullptr;
    }
    auto recorded = std::make_unique<Recorded>(part.recorded);
    recorded->x = Var::leaf(part.tensor(x));
    recorded->y = part.fn(recorded->x, RandomKey{key});
    std::ranges::copy(widened(recorded->y.value()).view<double>(), y);
    return recorded.release();
  }
  static void backward(void* context, void* kept, const double* dy, double* dx) {
    auto& recorded = *static_cast<Recorded*>(kept);
    recorded.tape.backward(recorded.y, static_cast<Part*>(context)->tensor(dy));
    std::ranges::copy(widened(recorded.x.grad()).view<double>(), dx);
  }
  static void release(void* kept) { delete static_cast<Recorded*>(kept); }
  // The first key is the one that the library's checkpoint would take.
  static std::uint64_t next_key(void* context) {
    Part& part = *static_cast<Part*>(context);
    const std::uint64_t number = part.keys++;
    return number == 0 ? part.key.value : part.key.fold(number).value;
  }

  TilegradMineFunction abi() {
    return {.context = this,
            .size = shape.size(),
            .forward = forward,
            .backward = backward,
            .release = release,
            .next_key = next_key};
  }
};

using Kept = std::unique_ptr<void, void (*)(void*)>;

struct MineCheckpointRule {
  static constexpr std::string_view name = "checkpoint by mine";
  const Library* library;
  std::unique_ptr<Part> part;
  Kept kept;

  void backward(const Tensor& dy, InputGrads& dx) {
    const Tensor dy64 = widened(dy);
    Tensor out = doubles(dy.shape());
    const TilegradMineFunction f = part->abi();
    check_mine(library->checkpoint_backward(&f, kept.get(), numbers(dy64), numbers(out)));
    if (dx.needs(0)) dx.add(0, out.cast(dy.dtype()));
  }
};

Var checkpoint_by(const Library& library, nn::KeyedFunction fn, const Var& x, RandomKey key) {
  if (Tape::recording() == nullptr) return fn(x, key);
  auto part = std::make_unique<Part>(
      Part{.fn = std::move(fn), .key = key, .shape = x.value().shape(), .dtype = x.value().dtype()});
  const TilegradMineFunction f = part->abi();
  const Tensor x64 = widened(x.value());
  Tensor y = doubles(x64.shape());
  void* raw = nullptr;
  const char* const complaint = library.checkpoint_forward(&f, numbers(x64), numbers(y), &raw);
  Kept kept(raw, library.checkpoint_free);
  check_mine(complaint);
  // Its tape would record what comes after this part.
  check(part->recorded == 0,
        "mine: checkpoint_forward keeps what f saved; a checkpoint keeps the input alone");
  const Var inputs[] = {x};
  return record(
      y.cast(x.value().dtype()), std::span<const Var>(inputs),
      [&] {
        return MineCheckpointRule{.library = &library, .part = std::move(part), .kept = std::move(kept)};
      },
      When::always);
}

}  // namespace

nn::AttentionFunction mine_attention(const fs::path& folder) {
  const Library& library = library_of(folder);
  return [&library](const Var& q, const Var& k, const Var& v) { return attention_by(library, q, k, v); };
}

nn::CheckpointOp mine_checkpoint(const fs::path& folder) {
  const Library& library = library_of(folder);
  return [&library](nn::KeyedFunction fn, const Var& x, RandomKey key) {
    return checkpoint_by(library, std::move(fn), x, key);
  };
}

void use_mine(nn::TransformerConfig& config, const fs::path& attention, const fs::path& checkpoint) {
  if (!attention.empty()) {
    const nn::AttentionConfig& a = config.attention;
    const auto check_plain = [](bool is_plain, std::string_view option) {
      check(is_plain, "mine: a learner's attention is plain and causal, without {}", option);
    };
    check_plain(a.options().empty(), a.options());
    check_plain(a.positions != nn::PositionEncoding::alibi, "alibi positions");
    check_plain(config.dropout == 0, "dropout");
    config.attention.custom = mine_attention(attention);
  }
  if (!checkpoint.empty()) config.checkpoint_with = mine_checkpoint(checkpoint);
}

}  // namespace tilegrad::train
