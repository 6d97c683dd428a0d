#pragma once

#include "tilegrad/autograd/ops.h"

/// Arithmetic as it is written on paper; each operator is one op of ops.h, or two. Both sides have equal
/// shapes, or one is a number. A Parameter or a Tensor may stand where a Var does.
namespace tilegrad {

inline Var operator+(const Var& a, const Var& b) { return add(a, b); }
inline Var operator-(const Var& a, const Var& b) { return sub(a, b); }
inline Var operator*(const Var& a, const Var& b) { return mul(a, b); }
inline Var operator/(const Var& a, const Var& b) { return div(a, b); }
inline Var operator-(const Var& x) { return scale(x, -1); }

inline Var operator+(const Var& x, double s) { return shift(x, s); }
inline Var operator+(double s, const Var& x) { return shift(x, s); }
inline Var operator-(const Var& x, double s) { return shift(x, -s); }
inline Var operator-(double s, const Var& x) { return shift(-x, s); }
inline Var operator*(const Var& x, double s) { return scale(x, s); }
inline Var operator*(double s, const Var& x) { return scale(x, s); }
/// x times 1/s, which may differ from x / s in the last bit.
inline Var operator/(const Var& x, double s) { return scale(x, 1 / s); }
inline Var operator/(double s, const Var& x) { return quotient(s, x); }

}  // namespace tilegrad
