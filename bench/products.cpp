// Matrix products by OpenBLAS, by gemm() and, where it is installed, by oneDNN, for peers/products.py to compare.

#include <cblas.h>
#include <omp.h>

#ifdef TILEGRAD_BENCH_ONEDNN
#include <dnnl.h>
#endif

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "bench/program.h"
#include "bench/simd_limit.h"
#include "tilegrad/autograd/tensor.h"
#include "tilegrad/kernels/gemm.h"
#include "tilegrad/kernels/parallel.h"
#include "tilegrad/train/measure/environment.h"
#include "tilegrad/train/measure/machine_load.h"
#include "tilegrad/train/measure/speed.h"
#include "tilegrad/train/measure/system.h"

using namespace tilegrad;
using kernels::Op;
using nlohmann::ordered_json;

namespace {

using Clock = std::chrono::steady_clock;

// c (m, n) = op_a(a) op_b(b), with `inner` terms in each sum.
struct Product {
  Op op_a, op_b;
  Tensor a, b, c;
  Index inner;

  Product(const std::string& pass, Index m, Index n, Index k)
      : op_a(pass == "dw" ? Op::transpose : Op::none),
        op_b(pass == "forward" ? Op::transpose : Op::none),
        a(Tensor::normal(shape(m, k, op_a), Dtype::f32, RandomKey{1})),
        b(Tensor::normal(shape(k, n, op_b), Dtype::f32, RandomKey{2})),
        c(Tensor::empty({m, n}, Dtype::f32)),
        inner(k) {
    check(pass == "forward" || pass == "dx" || pass == "dw", "products: there is no pass `{}`", pass);
  }

 private:
  static Shape shape(Index rows, Index cols, Op op) {
    return op == Op::none ? Shape{rows, cols} : Shape{cols, rows};
  }
};

// A library that multiplies, and how to prepare it for a number of threads.
struct Library {
  std::string name;
  std::function<void(int threads)> prepare;
  std::function<void(Product&)> multiply;
};

// OpenBLAS looks at OpenMP's setting or, built on threads of its own, at this one.
void set_openblas_threads(int threads) {
  openblas_set_num_threads(threads);
  omp_set_num_threads(threads);
}

void multiply_by_openblas(Product& p) {
  const auto op = [](Op of) { return of == Op::none ? CblasNoTrans : CblasTrans; };
  const auto size = [](Index n) { return static_cast<blasint>(n); };
  const kernels::Mat<float> c = p.c.mut_mat<float>();
  const kernels::Mat<const float> a = p.a.mat<float>(), b = p.b.mat<float>();
  cblas_sgemm(CblasRowMajor, op(p.op_a), op(p.op_b), size(c.rows), size(c.cols), size(p.inner), 1, a.data,
              size(a.stride), b.data, size(b.stride), 0, c.data, size(c.stride));
}

void multiply_by_gemm(Product& p) {
  kernels::gemm<float>(p.c.mut_mat<float>(), 1, p.a.mat<float>(), p.op_a, p.b.mat<float>(), p.op_b, 0);
}

#ifdef TILEGRAD_BENCH_ONEDNN
void multiply_by_onednn(Product& p) {
  const auto op = [](Op of) { return of == Op::none ? 'N' : 'T'; };
  const kernels::Mat<float> c = p.c.mut_mat<float>();
  const kernels::Mat<const float> a = p.a.mat<float>(), b = p.b.mat<float>();
  const dnnl_status_t status = dnnl_sgemm(op(p.op_a), op(p.op_b), c.rows, c.cols, p.inner, 1, a.data,
                                          a.stride, b.data, b.stride, 0, c.data, c.stride);
  check(status == dnnl_success, "products: oneDNN failed with status {}", static_cast<int>(status));
}
#endif

std::vector<Library> libraries() {
  std::vector<Library> all = {
      {.name = "openblas", .prepare = set_openblas_threads, .multiply = multiply_by_openblas},
      {.name = "tilegrad", .prepare = [](int) { set_openblas_threads(1); }, .multiply = multiply_by_gemm}};
#ifdef TILEGRAD_BENCH_ONEDNN
  all.push_back({.name = "onednn", .prepare = omp_set_num_threads, .multiply = multiply_by_onednn});
#endif
  return all;
}

double ms_per_call(const std::function<void()>& call, Index calls) {
  const auto start = Clock::now();
  for (Index i = 0; i < calls; ++i) call();
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count() / static_cast<double>(calls);
}

// One repetition: the mean of as many calls as fill about 5 ms. Threads of OpenMP look for work for some milliseconds
// after each product, in the way of the library that comes next: that one waits.
double time_library(const Library& library, Product& product, int threads) {
  constexpr double kMs = 5;
  constexpr auto kIdle = std::chrono::milliseconds(20);
  const auto call = [&] { library.multiply(product); };
  std::this_thread::sleep_for(kIdle);
  library.prepare(threads);
  const double once = ms_per_call(call, 1);  // brings threads and caches to where they are in a row of calls
  return ms_per_call(call, std::max<Index>(1, static_cast<Index>(std::ceil(kMs / once))));
}

// Throws unless the libraries agree. Sums of k products of N(0, 1) are about √k.
void check_agreement(const std::vector<Library>& all, Product& product, int threads) {
  constexpr double kTolerance = 1e-4;
  std::vector<float> expected;
  for (const Library& library : all) {
    std::ranges::fill(product.c.mut<float>(), std::numeric_limits<float>::quiet_NaN());
    library.prepare(threads);
    library.multiply(product);
    const auto result = product.c.view<float>();
    if (expected.empty()) expected.assign(result.begin(), result.end());
    const double most = kTolerance * std::sqrt(static_cast<double>(product.inner));
    for (std::size_t i = 0; i < result.size(); ++i) {
      const double difference = std::abs(double{result[i]} - double{expected[i]});
      check(difference <= most, "products: element {} by {} differs from that by {} by {}", i, library.name,
            all.front().name, difference);
    }
  }
}

// The libraries take turns; the fastest repetition counts.
ordered_json time_all(Product product, int threads, int turns) {
  static const std::vector<Library> all = libraries();
  const kernels::ThreadScope scope(threads);
  check_agreement(all, product, threads);
  const train::MachineLoad load;
  ordered_json ms = ordered_json::object();
  double peak_gflops = 0;
  for (int turn = 0; turn < turns; ++turn) {
    for (const Library& library : all) {
      const double time = time_library(library, product, threads);
      ms[library.name] = ms.contains(library.name) ? std::min(ms[library.name].get<double>(), time) : time;
    }
    peak_gflops = highest_fma_gflops<float>();
  }
  return {{"ms", ms}, {"others", load.share_of_others().value_or(0)}, {"peak_gflops", peak_gflops}};
}

}  // namespace

// products TURNS: times each product that standard input names by a line "PASS M N K THREADS", and answers each with a
// line of JSON. PASS is forward, a bᵀ; dx, a b; or dw, aᵀ b.
int main(int argc, char** argv) {
  return bench::guarded([&] {
    bench::limit_simd();
    check(argc == 2, "products: give the number of turns");
    const auto turns = static_cast<int>(bench::positive("products", argv[1]));
    bench::answer({{"processor", processor_name()},
                   {"simd", train::simd_target()},
                   {"openblas", kernels::blas_core()}});
    std::string pass;
    Index m = 0, n = 0, k = 0;
    int threads = 0;
    while (std::cin >> pass >> m >> n >> k >> threads)
      bench::answer(time_all(Product(pass, m, n, k), threads, turns));
  });
}
