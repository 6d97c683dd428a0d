#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "tilegrad/autograd/op_listener.h"
#include "tilegrad/autograd/tape.h"

namespace tilegrad::test {

// The ops that backward runs again, in their order.
class RecomputedOps final : public OpListener {
 public:
  std::vector<std::string> ops;

  Index count(std::string_view op) const { return std::count(ops.begin(), ops.end(), op); }

 private:
  void begin(std::string_view op) override {
    if (Tape::pass() == Tape::Pass::recompute) ops.emplace_back(op);
  }
  void end() override {}
  void recorded(std::string_view, Index) override {}
};

}  // namespace tilegrad::test
