if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|i[3-6]86)$")
  set(TILEGRAD_PROCESSOR_IS_X86 TRUE)
endif()

# What the processor of this machine can run, as far as Linux tells.
set(TILEGRAD_PROCESSOR_FLAGS "")
if(EXISTS /proc/cpuinfo AND NOT CMAKE_CROSSCOMPILING)
  file(STRINGS /proc/cpuinfo TILEGRAD_PROCESSOR_FLAGS REGEX "^flags" LIMIT_COUNT 1)
endif()

# tilegrad_processor_has(<variable> <flags...>)
function(tilegrad_processor_has variable)
  set(${variable} TRUE PARENT_SCOPE)
  foreach(flag ${ARGN})
    if(NOT "${TILEGRAD_PROCESSOR_FLAGS} " MATCHES " ${flag} ")
      set(${variable} FALSE PARENT_SCOPE)
    endif()
  endforeach()
endfunction()

tilegrad_processor_has(TILEGRAD_PROCESSOR_HAS_AVX avx)
tilegrad_processor_has(TILEGRAD_PROCESSOR_HAS_AVX2 avx2 fma)
tilegrad_processor_has(TILEGRAD_PROCESSOR_HAS_AVX512 avx512f avx512bw avx512vl)
