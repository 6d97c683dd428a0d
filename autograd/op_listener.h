#pragma once

#include <string_view>
#include <utility>

#include "tilegrad/autograd/deferral.h"
#include "tilegrad/autograd/dtype.h"
#include "tilegrad/base/error.h"
#include "tilegrad/base/index.h"

/// Profilers register here. Without one, an op costs one extra null check.
namespace tilegrad {

/// Observes the ops that one thread runs. Their names live as long as the program.
class OpListener {
 public:
  virtual ~OpListener() = default;
  /// An op starts, forward or backward; Tape::pass() says which. Ops that start before it ends are part of
  /// it, such as those that a checkpoint runs again.
  virtual void begin(std::string_view op) = 0;
  /// The op that started last and has not ended yet is done. In backward it has also released what it saved.
  virtual void end() = 0;
  /// The tape took an op whose rule saves `saved_bytes`, counted as Saved::total_bytes() does.
  virtual void recorded(std::string_view op, Index saved_bytes) = 0;
};

/// While the scope lives, `listener` observes the ops of this thread. Of nested scopes, only the innermost
/// one does.
class ListenScope {
 public:
  explicit ListenScope(OpListener& listener) : outer_(std::exchange(listening_, &listener)) {}
  ~ListenScope() { listening_ = outer_; }
  ListenScope(const ListenScope&) = delete;
  ListenScope& operator=(const ListenScope&) = delete;

  /// The listener of this thread, or nullptr.
  static OpListener* listening() { return listening_; }

 private:
  static inline constinit thread_local OpListener* listening_ = nullptr;
  OpListener* outer_;
};

/// The first statement of an op. The op lasts as long as the scope, which carries its name.
class OpScope {
 public:
  /// Ops that wait are computed first.
  explicit OpScope(std::string_view name) : name_(name) {
    Deferral::compute_waiting();
    begin();
  }
  /// Of an op that may wait itself, for output_of(): if it does, it begins when it is computed.
  struct MayWait {};
  OpScope(std::string_view name, MayWait) : name_(name) {
    if (Deferral::active() == nullptr) begin();
  }
  ~OpScope() {
    if (listener_ != nullptr) listener_->end();
  }
  OpScope(const OpScope&) = delete;
  OpScope& operator=(const OpScope&) = delete;

  std::string_view name() const { return name_; }
  /// Throws Error "NAME: message" unless `condition` holds.
  template <class... Args>
  void check(bool condition, fmt::format_string<Args...> message, Args&&... args) const {
    if (!condition) [[unlikely]]
      fail("{}: {}", name_, fmt::format(message, std::forward<Args>(args)...));
  }
  template <class F>
  decltype(auto) with_float_type(Dtype dtype, F&& f) const {
    return tilegrad::with_float_type(name_, dtype, std::forward<F>(f));
  }

 private:
  void begin() {
    listener_ = ListenScope::listening();
    if (listener_ != nullptr) listener_->begin(name_);
  }

  std::string_view name_;
  OpListener* listener_ = nullptr;
};

}  // namespace tilegrad
