// Exercise 9*: a tape, and a transformer that learns to sort with it. The page is 09_tape.md.
#include "course.h"

// Runs the rules of the tape, so that every value holds the gradient of `loss`, a (1, 1) value. The tape is empty
// afterwards.
void backward(Tape& tape, const Var& loss) {
  // BEGIN SOLUTION
  loss->grad()(0, 0) = 1;
  for (auto rule = tape.rules.rbegin(); rule != tape.rules.rend(); ++rule) (*rule)();
  //! forwards: for (const auto& rule : tape.rules) rule();
  tape.rules.clear();
  //! not-emptied:
  // END SOLUTION
}

// a + b, elementwise
Var add(Tape& tape, const Var& a, const Var& b) {
  // BEGIN SOLUTION
  const Var y = make(a->rows, a->cols);
  for (int e = 0; e < y->size(); ++e) y->values[e] = a->values[e] + b->values[e];
  tape.rules.push_back([=] {
    for (int e = 0; e < y->size(); ++e) a->grads[e] += y->grads[e];
    //! overwritten: for (int e = 0; e < y->size(); ++e) a->grads[e] = y->grads[e];
    for (int e = 0; e < y->size(); ++e) b->grads[e] += y->grads[e];
    //! overwritten: for (int e = 0; e < y->size(); ++e) b->grads[e] = y->grads[e];
  });
  return y;
  // END SOLUTION
}

// a (n, k) times b (k, m)
Var matmul(Tape& tape, const Var& a, const Var& b) {
  // BEGIN SOLUTION
  const Var y = make(a->rows, b->cols);
  for (int i = 0; i < y->rows; ++i) {
    for (int c = 0; c < a->cols; ++c) add(y->value().row(i), a->value()(i, c), b->value().row(c));
  }
  tape.rules.push_back([=] {
    for (int i = 0; i < y->rows; ++i) {
      for (int c = 0; c < a->cols; ++c) {
        a->grad()(i, c) += dot(y->grad().row(i), b->value().row(c));
        //! a-forgotten:
        add(b->grad().row(c), a->value()(i, c), y->grad().row(i));
        //! b-forgotten:
      }
    }
  });
  return y;
  // END SOLUTION
}

// max(x, 0), elementwise
Var relu(Tape& tape, const Var& x) {
  // BEGIN SOLUTION
  const Var y = make(x->rows, x->cols);
  for (int e = 0; e < y->size(); ++e) y->values[e] = std::max(x->values[e], 0.0);
  tape.rules.push_back([=] {
    for (int e = 0; e < y->size(); ++e) x->grads[e] += x->values[e] > 0 ? y->grads[e] : 0;
    //! relu-passes-all: for (int e = 0; e < y->size(); ++e) x->grads[e] += y->grads[e];
  });
  return y;
  // END SOLUTION
}

// Row i of the result is row tokens[i] of the table.
Var embed(Tape& tape, const Var& table, const std::vector<int>& tokens) {
  // BEGIN SOLUTION
  const Var y = make(static_cast<int>(tokens.size()), table->cols);
  for (int i = 0; i < y->rows; ++i) add(y->value().row(i), 1, table->value().row(tokens[i]));
  tape.rules.push_back([=] {
    for (int i = 0; i < y->rows; ++i) add(table->grad().row(tokens[i]), 1, y->grad().row(i));
    //! last-token: for (int i = 0; i < y->rows; ++i) { fill(table->grad().row(tokens[i]), 0);
    //! last-token:   add(table->grad().row(tokens[i]), 1, y->grad().row(i)); }
  });
  return y;
  // END SOLUTION
}

// Causal attention of one head: q, k and v are (T, D).
Var attention(Tape& tape, const Var& q, const Var& k, const Var& v) {
  // BEGIN SOLUTION
  const Var y = make(q->rows, q->cols);
  std::vector<double> lse(q->rows);
  head_forward(y->value(), Vector(lse), q->value(), k->value(), v->value(), true);
  tape.rules.push_back([=]() mutable {
    const Var dq = make(q->rows, q->cols), dk = make(k->rows, k->cols), dv = make(v->rows, v->cols);
    head_backward(dq->value(), dk->value(), dv->value(), y->grad(), q->value(), k->value(), v->value(),
                  y->value(), Vector(lse), true);
    for (int e = 0; e < q->size(); ++e) q->grads[e] += dq->values[e];
    for (int e = 0; e < k->size(); ++e) k->grads[e] += dk->values[e];
    for (int e = 0; e < v->size(); ++e) v->grads[e] += dv->values[e];
    //! dv-forgotten:
  });
  return y;
  // END SOLUTION
}

// The mean of -log softmax(logits)_target over the rows that have a target; a target of -1 is none. (1, 1).
Var cross_entropy(Tape& tape, const Var& logits, const std::vector<int>& targets) {
  // BEGIN SOLUTION
  const Var loss = make(1, 1), p = make(logits->rows, logits->cols);
  const auto asked = std::count_if(targets.begin(), targets.end(), [](int t) { return t >= 0; });
  //! sum-not-mean: const double asked = 1;
  //! mean-of-all-rows: const double asked = static_cast<double>(targets.size());
  for (int i = 0; i < p->rows; ++i) {
    if (targets[i] < 0) continue;
    double largest = -kInfinity, sum = 0;
    for (int j = 0; j < p->cols; ++j) largest = std::max(largest, logits->value()(i, j));
    for (int j = 0; j < p->cols; ++j) sum += p->value()(i, j) = std::exp(logits->value()(i, j) - largest);
    for (int j = 0; j < p->cols; ++j) p->value()(i, j) /= sum;
    loss->value()(0, 0) -= std::log(p->value()(i, targets[i])) / asked;
    p->value()(i, targets[i]) -= 1;
    //! target-forgotten:
  }
  tape.rules.push_back([=] { add(Vector(logits->grads), loss->grad()(0, 0) / asked, Vector(p->values)); });
  return loss;
  // END SOLUTION
}

// CHECK
#include "sort_task.h"

namespace check {

struct Functions {
  void (*backward)(Tape& tape, const Var& loss);
  Var (*add)(Tape& tape, const Var& a, const Var& b);
  Var (*matmul)(Tape& tape, const Var& a, const Var& b);
  Var (*relu)(Tape& tape, const Var& x);
  Var (*embed)(Tape& tape, const Var& table, const std::vector<int>& tokens);
  Var (*attention)(Tape& tape, const Var& q, const Var& k, const Var& v);
  Var (*cross_entropy)(Tape& tape, const Var& logits, const std::vector<int>& targets);
};

const std::vector<Mistake> kMistakes = {
    {"forwards", "the rules run in the order of the way forward; back they run from the last to the first"},
    {"not-emptied", "the tape still holds its rules after backward"},
    {"overwritten",
     "add overwrites the gradients of its inputs; a value that is used twice gets two contributions"},
    {"a-forgotten", "matmul has no gradient for a: da = dy b^T"},
    {"b-forgotten", "matmul has no gradient for b: db = a^T dy"},
    {"relu-passes-all", "relu lets the gradient through where x is negative"},
    {"last-token", "a row of the table that several tokens read has the gradient of the last one alone"},
    {"dv-forgotten", "attention has no gradient for v"},
    {"sum-not-mean", "the loss is the sum over the rows that have a target; it is their mean"},
    {"mean-of-all-rows", "the loss is divided by the number of all rows; rows without a target do not count"},
    {"target-forgotten", "the gradient of the logits is softmax alone; it is softmax minus 1 at the target"},
};

// One op at a time on (tq, tk) matrices, and the reference for all others: `title` says which is the learner's.
const std::vector<Case> kCases = {{.title = "add", .tq = 3, .tk = 4, .seed = 1},
                                  {.title = "matmul", .tq = 3, .tk = 5, .seed = 2},
                                  {.title = "relu", .tq = 3, .tk = 4, .seed = 3},
                                  {.title = "embed", .tq = 5, .tk = 3, .seed = 4},
                                  {.title = "attention", .tq = 5, .tk = 7, .seed = 5},
                                  {.title = "cross_entropy", .tq = 6, .tk = 4, .seed = 6},
                                  {.title = "backward", .tq = 3, .tk = 3, .seed = 7}};

Tensors inputs(const Case& c) {
  Draw draw(c.seed);
  return {draw.tensor("a", c.tq, c.tk), draw.tensor("b", c.title == "matmul" ? c.tk : c.tq, c.tk),
          draw.tensor("v", c.tq, c.tk), draw.tensor("w", 1, c.tq), draw.tensor("u", c.tk, 1)};
}

const Functions kReference = {&reference::backward,     &reference::add,   &reference::matmul,
                              &reference::relu,         &reference::embed, &reference::attention,
                              &reference::cross_entropy};

Var var_of(const Tensor& t) {
  const Var x = make(t.rows, t.cols);
  x->values = t.data;
  return x;
}

// A scalar of a computation in which a and b are used twice; the op of the case is f's.
Var computation(const Functions& f, const Case& c, Tape& tape, const std::vector<Var>& in) {
  Functions ops = kReference;
  if (c.title == "add") ops.add = f.add;
  if (c.title == "matmul") ops.matmul = f.matmul;
  if (c.title == "relu") ops.relu = f.relu;
  if (c.title == "embed") ops.embed = f.embed;
  if (c.title == "attention") ops.attention = f.attention;
  if (c.title == "cross_entropy") ops.cross_entropy = f.cross_entropy;
  const Var &a = in[0], &b = in[1];
  Var y = a;
  if (c.title == "matmul") y = ops.matmul(tape, a, b);
  if (c.title == "relu") y = ops.relu(tape, a);
  if (c.title == "embed") y = ops.embed(tape, a, {1, 0, 1, 2, 1});
  if (c.title == "attention") y = ops.attention(tape, a, b, in[2]);
  if (c.title == "cross_entropy") return ops.cross_entropy(tape, ops.add(tape, y, b), {2, -1, 0, 3, -1, 1});
  y = ops.add(tape, y, c.title == "matmul" ? a : b);
  if (c.title == "add") y = ops.add(tape, y, a);
  if (c.title == "backward") y = ops.relu(tape, ops.matmul(tape, y, y));
  return ops.matmul(tape, ops.matmul(tape, in[3], y), in[4]);
}

Tensors run(const Functions& f, const Case& c, Tensors& in) {
  std::vector<Var> vars;
  for (const Tensor& t : in) vars.push_back(var_of(t));
  Tape tape;
  const Var value = computation(f, c, tape, vars);
  (c.title == "backward" ? f : kReference).backward(tape, value);
  Tensors out = {Tensor("the value", 1)};
  out[0].data = value->values;
  for (std::size_t i = 0; i < vars.size(); ++i) {
    out.push_back(Tensor("the gradient of " + in[i].name, in[i].rows, in[i].cols, in[i].name));
    out.back().data = vars[i]->grads;
  }
  out.push_back(Tensor("the number of rules left on the tape", 1));
  out.back().data = {static_cast<double>(tape.rules.size())};
  return out;
}

double loss(const Case& c, Tensors& in) {
  std::vector<Var> vars;
  for (const Tensor& t : in) vars.push_back(var_of(t));
  Tape tape;
  return computation(kReference, c, tape, vars)->values[0];
}

bool epilogue(const Functions& f) { return train_to_sort(f); }

}  // namespace check
