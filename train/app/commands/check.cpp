#include <algorithm>

#include "tilegrad/base/error.h"
#include "tilegrad/train/app/check_report.h"
#include "tilegrad/train/app/command.h"

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

Command add_check_command(CLI::App& program) {
  CLI::App* app = program.add_subcommand("check", "compare every gradient with finite differences");
  return {app, [](const Console& console) {
            const auto cases = check_cases();
            const Index failures = run_checks(cases, console.out);
            console.out << fmt::format("{} of {} gradients agree with finite differences\n",
                                       std::ssize(cases) - failures, cases.size())
                        << std::flush;
            return failures == 0 ? kSuccess : kFailure;
          }};
}

}  // namespace tilegrad::train
