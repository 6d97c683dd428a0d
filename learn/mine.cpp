// The learner's exercises 5 to 8, as the program calls them.
#include <string>

#include "course.h"
#include "course_errors.h"
#include "train/run/mine_abi.h"

void flash_forward(Matrix out, Vector lse, ConstMatrix q, ConstMatrix k, ConstMatrix v, bool causal,
                   int tile_q, int tile_k);
void flash_backward(Matrix dq, Matrix dk, Matrix dv, ConstMatrix dout, ConstMatrix q, ConstMatrix k,
                    ConstMatrix v, ConstMatrix out, ConstVector lse, bool causal, int tile_q, int tile_k);
void grouped_forward(Heads out, Matrix lse, ConstHeads q, ConstHeads k, ConstHeads v, bool causal);
void grouped_backward(Heads dq, Heads dk, Heads dv, ConstHeads dout, ConstHeads q, ConstHeads k, ConstHeads v,
                      ConstHeads out, ConstMatrix lse, bool causal);
Values checkpoint_forward(Kept& kept, Function& f, const Values& x, Keys& keys);
Values checkpoint_backward(const Kept& kept, Function& f, const Values& dy, Keys& keys);

#include "check/heads.h"  // by the functions above

namespace {

std::string complaint;

// Runs `f` and returns what went wrong in the learner's code. An exception of the program itself passes through.
template <class F>
const char* guarded(F&& f) {
  try {
    f();
    return nullptr;
  } catch (const course::NotWritten& error) {
    complaint = error.text;
  } catch (const course::Misuse& error) {
    complaint = error.text;
  }
  return complaint.c_str();
}

// Multi-head attention needs exercises 5 and 7 alone; exercise 6 is asked where heads share keys and values.
bool shares_heads(const TilegradMineShape& s) { return s.heads != s.kv_heads; }

HeadsOf<const double> queries(const TilegradMineShape& s, const double* x) {
  return {x, s.tq, s.heads, s.dim};
}
HeadsOf<const double> keys(const TilegradMineShape& s, const double* x) {
  return {x, s.tk, s.kv_heads, s.dim};
}
Heads queries(const TilegradMineShape& s, double* x) { return {x, s.tq, s.heads, s.dim}; }
Heads keys(const TilegradMineShape& s, double* x) { return {x, s.tk, s.kv_heads, s.dim}; }

class ProgramFunction final : public Function, public Keys {
 public:
  explicit ProgramFunction(const TilegradMineFunction& f) : f_(f) {}

  Values forward(const Values& x, std::uint64_t key, Saved* saved) override {
    Values y(check_size(x));
    void* const kept = f_.forward(f_.context, x.data(), key, saved != nullptr, y.data());
    if (saved != nullptr) saved->state = std::shared_ptr<void>(kept, f_.release);
    return y;
  }
  Values backward(const Values& dy, const Saved& saved) override {
    if (saved.state == nullptr)
      throw course::Misuse{"f.backward was given a Saved that no forward has filled"};
    Values dx(check_size(dy));
    f_.backward(f_.context, saved.state.get(), dy.data(), dx.data());
    return dx;
  }
  std::uint64_t next() override { return f_.next_key(f_.context); }

 private:
  std::size_t check_size(const Values& x) const {
    if (static_cast<std::int64_t>(x.size()) == f_.size) return x.size();
    throw course::Misuse{"f was given " + std::to_string(x.size()) + " values instead of " +
                         std::to_string(f_.size)};
  }
  const TilegradMineFunction& f_;
};

void copy_result(const Values& values, std::int64_t size, double* to) {
  if (static_cast<std::int64_t>(values.size()) != size) {
    throw course::Misuse{"the checkpoint returned " + std::to_string(values.size()) + " values instead of " +
                         std::to_string(size)};
  }
  std::copy(values.begin(), values.end(), to);
}

}  // namespace

const char* tilegrad_mine_forward(const TilegradMineShape* shape, const double* q, const double* k,
                                  const double* v, double* out, double* lse) {
  const TilegradMineShape& s = *shape;
  const Matrix lse_rows(lse, s.heads, s.tq);
  return guarded([&] {
    if (shares_heads(s))
      return grouped_forward(queries(s, out), lse_rows, queries(s, q), keys(s, k), keys(s, v), true);
    for (int h = 0; h < s.heads; ++h) {
      head_forward(queries(s, out).head(h), lse_rows.row(h), queries(s, q).head(h), keys(s, k).head(h),
                   keys(s, v).head(h), true);
    }
  });
}

const char* tilegrad_mine_backward(const TilegradMineShape* shape, const double* dout, const double* q,
                                   const double* k, const double* v, const double* out, const double* lse,
                                   double* dq, double* dk, double* dv) {
  const TilegradMineShape& s = *shape;
  const ConstMatrix lse_rows(lse, s.heads, s.tq);
  return guarded([&] {
    if (shares_heads(s)) {
      return grouped_backward(queries(s, dq), keys(s, dk), keys(s, dv), queries(s, dout), queries(s, q),
                              keys(s, k), keys(s, v), queries(s, out), lse_rows, true);
    }
    for (int h = 0; h < s.heads; ++h) {
      head_backward(queries(s, dq).head(h), keys(s, dk).head(h), keys(s, dv).head(h),
                    queries(s, dout).head(h), queries(s, q).head(h), keys(s, k).head(h), keys(s, v).head(h),
                    queries(s, out).head(h), lse_rows.row(h), true);
    }
  });
}

const char* tilegrad_mine_checkpoint_forward(const TilegradMineFunction* f, const double* x, double* y,
                                             void** kept) {
  auto mine = std::make_unique<Kept>();
  const char* const wrong = guarded([&] {
    ProgramFunction function(*f);
    copy_result(checkpoint_forward(*mine, function, Values(x, x + f->size), function), f->size, y);
  });
  *kept = mine.release();
  return wrong;
}

const char* tilegrad_mine_checkpoint_backward(const TilegradMineFunction* f, const void* kept,
                                              const double* dy, double* dx) {
  return guarded([&] {
    ProgramFunction function(*f);
    copy_result(
        checkpoint_backward(*static_cast<const Kept*>(kept), function, Values(dy, dy + f->size), function),
        f->size, dx);
  });
}

void tilegrad_mine_checkpoint_free(void* kept) { delete static_cast<Kept*>(kept); }
