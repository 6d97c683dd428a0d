#include "tilegrad/base/process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>

#include "tilegrad/base/error.h"
#include "tilegrad/base/interrupt.h"

namespace tilegrad {

namespace {

constexpr int kCannotExecute = 127;

// Between fork and exec only calls are allowed that a signal handler may make, so everything is ready before.
[[noreturn]] void become(const char* program, char* const* argv, const sigset_t& unblocked) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);  // never outlives its parent
  if (std::signal(SIGTERM, SIG_DFL) == SIG_IGN) std::signal(SIGTERM, SIG_IGN);
  pthread_sigmask(SIG_SETMASK, &unblocked, nullptr);
  execv(program, argv);
  _exit(kCannotExecute);
}

}  // namespace

ChildResult run_child(const std::filesystem::path& program, const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {program.string()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  // Until it has become the program the child has our handlers, which would swallow an interrupt.
  sigset_t passed_on_later, before;
  sigemptyset(&passed_on_later);
  sigaddset(&passed_on_later, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &passed_on_later, &before);
  const pid_t child = fork();
  if (child == 0) become(argv[0], argv.data(), before);
  const int error = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  check(child >= 0, "{}: cannot be started: {}", program.string(), std::strerror(error));

  int status = 0;
  rusage usage = {};
  bool passed_on = false;
  // Polls, because a signal that arrives just before a blocking wait would not end it.
  while (wait4(child, &status, WNOHANG, &usage) == 0) {
    if (InterruptScope::requested() && !passed_on) {
      kill(child, SIGTERM);  // not SIGINT, which jobs in the background ignore
      passed_on = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  check(code != kCannotExecute, "{}: cannot be started", program.string());
  return {.exit_code = code,
          .peak_rss = Index{usage.ru_maxrss} * 1024,
          .ended_by_interrupt = passed_on && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM};
}

void open_standard_streams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    // The lowest free number is the one that is opened, so this opens fd itself.
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) open("/dev/null", O_RDWR);
  }
}

}  // namespace tilegrad
