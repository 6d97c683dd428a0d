#include "tilegrad/autograd/saved.h"

#include <utility>

#include "tilegrad/autograd/checkpoint.h"

namespace tilegrad {

namespace {
thread_local Index saved_bytes = 0;
}

Saved::Saved(const Var& value) : recomputation_(value.recomputation()) {
  if (recomputation_ != nullptr || !value.value().defined()) return;
  value_ = value.value();
  version_ = value_.version();
  saved_bytes += value_.bytes();
}

Saved::Saved(Saved&& other) noexcept
    : value_(std::exchange(other.value_, Tensor())),
      version_(other.version_),
      recomputation_(std::move(other.recomputation_)) {}

Saved& Saved::operator=(Saved&& other) noexcept {
  if (this != &other) {
    release();
    value_ = std::exchange(other.value_, Tensor());
    version_ = other.version_;
    recomputation_ = std::move(other.recomputation_);
  }
  return *this;
}

Saved::~Saved() { release(); }

const Tensor& Saved::get(std::string_view op, std::string_view what) const {
  if (recomputation_ != nullptr) return recomputation_->value(op);
  if (!value_.defined()) return value_;
  check(value_.version() == version_,
        "{}: saved `{}` {} was modified after the forward pass (version {} then, {} now)", op, what,
        value_.shape(), version_, value_.version());
  return value_;
}

Index Saved::total_bytes() { return saved_bytes; }

void Saved::release() {
  if (value_.defined()) saved_bytes -= value_.bytes();
  value_ = Tensor();
  recomputation_ = nullptr;
}

}  // namespace tilegrad
