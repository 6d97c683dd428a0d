#pragma once

#include <concepts>
#include <string>
#include <utility>
#include <vector>

#include "tilegrad/autograd/var.h"

/// A model is a struct of structs. A module lists its members once, in visit(), as pairs of a name and a
/// Parameter, a module, or a vector of either; everything that needs all parameters (optimizer, files,
/// counting) goes through that list. There is no base class and no registry.
///
///   struct Mlp {
///     Linear up, down;
///     void visit(auto&& f) { f("up", up); f("down", down); }
///   };
namespace tilegrad::nn {

struct NamedParameter {
  std::string name;  ///< dotted path, e.g. "blocks.2.attention.query.weight"
  Parameter* parameter;
};

namespace detail {

struct Collector {
  std::string prefix;
  std::vector<NamedParameter>& out;

  void operator()(std::string_view name, Parameter& parameter) const {
    if (parameter.defined()) out.push_back({prefix + std::string(name), &parameter});
  }
  template <class M>
  void operator()(std::string_view name, std::vector<M>& members) const {
    for (std::size_t i = 0; i < members.size(); ++i) {
      (*this)(std::string(name) + "." + std::to_string(i), members[i]);
    }
  }
  template <class M>
  requires requires(M& m, Collector c) { m.visit(c); }
  void operator()(std::string_view name, M& module) const {
    module.visit(Collector{prefix + std::string(name) + ".", out});
  }
};

}  // namespace detail

/// All parameters that are in use, in the order of the visits. Pointers stay valid as long as the module is
/// not moved.
template <class M>
std::vector<NamedParameter> parameters(M& module) {
  std::vector<NamedParameter> out;
  module.visit(detail::Collector{"", out});
  return out;
}

/// Number of elements in all of them.
Index count(const std::vector<NamedParameter>& parameters);

/// Drops all gradients and frees their memory.
void zero_grad(const std::vector<NamedParameter>& parameters);

}  // namespace tilegrad::nn
