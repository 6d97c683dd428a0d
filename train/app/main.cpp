#include <sys/ioctl.h>
#include <unistd.h>

#include <iostream>

#include "tilegrad/base/process.h"
#include "tilegrad/train/app/program.h"

int main(int argc, char** argv) {
  tilegrad::open_standard_streams();
  tilegrad::train::Console console = {.out = std::cout, .err = std::cerr};
  winsize size = {};
  console.terminal = isatty(STDOUT_FILENO) != 0;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) console.columns = size.ws_col;
  return tilegrad::train::run(argc, argv, console);
}
