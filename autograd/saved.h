#pragma once

#include <memory>
#include <string_view>

#include "tilegrad/autograd/var.h"

namespace tilegrad {

/// A value that a rule keeps from forward to backward: the only road between the two, so it is the one place
/// that counts the bytes kept and checks that they were not modified since. For a value that can be computed
/// again (see recomputed()) it keeps how to do so, and no bytes.
class Saved {
 public:
  Saved() = default;
  /// An undefined value saves nothing.
  explicit Saved(const Var& value);
  Saved(Saved&& other) noexcept;
  Saved& operator=(Saved&& other) noexcept;
  ~Saved();

  bool defined() const { return value_.defined() || recomputation_ != nullptr; }

  /// The value. Throws, naming the op and the value, if it was modified in place after the forward pass.
  const Tensor& get(std::string_view op, std::string_view what) const;

  /// How the value is computed again; null if it is kept.
  const std::shared_ptr<Recomputation>& recomputation() const { return recomputation_; }

  /// Bytes that all Saved values of this thread keep; a tensor that several ops keep counts each time.
  static Index total_bytes();

 private:
  void release();

  Tensor value_;  // undefined if there is a recomputation
  std::uint64_t version_ = 0;
  std::shared_ptr<Recomputation> recomputation_;
};

}  // namespace tilegrad
