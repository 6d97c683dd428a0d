#include "bench/best.h"

#include <algorithm>
#include <memory>
#include <string_view>
#include <vector>

namespace tilegrad::bench {

namespace {

double least(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }
double most(const std::vector<double>& values) { return *std::max_element(values.begin(), values.end()); }

// The usual reporter, without the statistics that a busy machine spoils.
class BestReporter : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context& context) override { return shown_->ReportContext(context); }

  void ReportRuns(const std::vector<Run>& runs) override {
    std::vector<Run> kept;
    for (const Run& run : runs) {
      failed_ = failed_ || run.error_occurred;
      const std::string_view statistic = run.aggregate_name;
      if (run.run_type == Run::RT_Iteration || statistic == "min" || statistic == "max") kept.push_back(run);
    }
    shown_->ReportRuns(kept);
  }

  void Finalize() override { shown_->Finalize(); }

  bool failed() const { return failed_; }

 private:
  std::unique_ptr<benchmark::BenchmarkReporter> shown_{benchmark::CreateDefaultDisplayReporter()};
  bool failed_ = false;
};

}  // namespace

void report_best(benchmark::internal::Benchmark* family) {
  family->UseRealTime()->ComputeStatistics("min", least)->ComputeStatistics("max", most);
}

int run_and_show_best() {
  BestReporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  return reporter.failed() ? 1 : 0;
}

}  // namespace tilegrad::bench
