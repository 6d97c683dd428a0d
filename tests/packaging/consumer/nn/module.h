#pragma once

// A header of the consumer, with a name that the library uses too.
inline const char* own_module() { return "own module"; }
