# cmake -DSOURCE=<folder> -DOUTPUT=<header> -DVERSION=<version> -P version.cmake
# Writes the version and, in a checkout, the commit into a header; touches it only if that changed.
execute_process(COMMAND git -C "${SOURCE}" describe --always --dirty --exclude=*
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(text "${VERSION}")
else()
  set(text "${VERSION}, commit ${commit}")
endif()
file(CONFIGURE OUTPUT "${OUTPUT}" CONTENT 
"#pragma once

#include <string_view>

namespace tilegrad {

inline constexpr std::string_view kVersion = \"${text}\";

}  // namespace tilegrad
")
