#include <unistd.h>

#include <iostream>

#include "train/program.h"

int main(int argc, char** argv) {
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  return tilegrad::train::run(argc, argv, {.out = std::cout, .err = std::cerr, .terminal = terminal});
}
