#include <algorithm>
#include <memory>

#include "tilegrad/base/error.h"
#include "tilegrad/train/app/check_attention.h"
#include "tilegrad/train/app/check_report.h"
#include "tilegrad/train/app/command.h"
#include "tilegrad/train/app/threads.h"

namespace tilegrad::train {

namespace {

GradcheckResult run_case(const GradcheckCase& c) {
  try {
    return gradcheck(c.function, c.inputs);
  } catch (const Error& error) {
    GradcheckResult failed;
    failed.passed = false;
    failed.worst = error.what();
    return failed;
  }
}

}  // namespace

Index run_checks(const std::vector<GradcheckCase>& cases, std::ostream& out) {
  std::size_t op_width = 2, shape_width = 6;
  for (const GradcheckCase& c : cases) {
    op_width = std::max(op_width, c.op.size());
    shape_width = std::max(shape_width, c.shapes.size());
  }
  const auto line = [&](std::string_view op, std::string_view shapes, std::string_view checked,
                        std::string_view error, std::string_view verdict) {
    out << fmt::format("{:<{}}  {:<{}}  {:>7}  {:>11}  {}\n", op, op_width, shapes, shape_width, checked,
                       error, verdict);
  };
  line("op", "inputs", "checked", "worst error", "verdict");
  Index failures = 0;
  for (const GradcheckCase& c : cases) {
    const GradcheckResult result = run_case(c);
    line(c.op, c.shapes, fmt::format("{}", result.inputs_checked), fmt::format("{:.1e}", result.worst_error),
         result.passed ? "ok" : "FAILED: " + result.worst);
    failures += !result.passed;
  }
  return failures;
}

namespace {

struct CheckOptions {
  explicit CheckOptions(CLI::App& app) {
    CLI::Option* const flag = app.add_flag("--attention", attention_only,
                                           "compare naive, flash and finite differences in one call");
    const auto size = [&](const std::string& names, Index& field, const std::string& help) {
      return app.add_option(names, field, help)
          ->check(CLI::Range(1, 4096))
          ->needs(flag)
          ->capture_default_str();
    };
    size("--batch,--b", attention.batch, "sequences");
    size("--heads,--h", attention.heads, "query heads");
    kv_heads = size("--kv-heads", attention.kv_heads, "key/value heads; as many as query heads unless given");
    size("--seq,--q-len", attention.tq, "length of the queries");
    kv_len = size("--kv-len", attention.tk, "length of the keys; that of the queries unless given");
    size("--head-size,--d", attention.head_size, "size of a head");
    app.add_option("--mask", attention.mask, "random masks each pair with probability 1/2; causal; or none")
        ->check(CLI::IsMember({"random", "causal", "none"}))
        ->needs(flag)
        ->capture_default_str();
    app.add_option("--seed", attention.seed, "seed of all random numbers")
        ->needs(flag)
        ->capture_default_str();
    add_threads(app, threads);
  }

  AttentionCheck resolve() const {
    AttentionCheck c = attention;
    if (kv_heads->count() == 0) c.kv_heads = c.heads;
    if (kv_len->count() == 0) c.tk = c.tq;
    return c;
  }

  AttentionCheck attention;
  bool attention_only = false;
  int threads = 0;
  CLI::Option *kv_heads = nullptr, *kv_len = nullptr;
};

}  // namespace

Command add_check_command(CLI::App& program) {
  CLI::App* app = program.add_subcommand("check", "compare every gradient with finite differences");
  const auto options = std::make_shared<CheckOptions>(*app);
  return {app, [options](const Console& console) {
            use_threads(options->threads);
            if (options->attention_only) {
              const Index failures = check_attention(options->resolve(), console.out);
              console.out << std::flush;
              return failures == 0 ? kSuccess : kFailure;
            }
            const auto cases = check_cases();
            const Index failures = run_checks(cases, console.out);
            console.out << fmt::format("{} of {} gradients agree with finite differences\n",
                                       std::ssize(cases) - failures, cases.size())
                        << std::flush;
            return failures == 0 ? kSuccess : kFailure;
          }};
}

}  // namespace tilegrad::train
