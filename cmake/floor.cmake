# What every target of the project compiles with. Floors link it privately, and nothing writes to CMAKE_CXX_FLAGS, so
# none of it reaches a project that uses the library.
add_library(tilegrad_options INTERFACE)
target_compile_features(tilegrad_options INTERFACE cxx_std_20)
target_compile_options(tilegrad_options INTERFACE
  -fno-math-errno  # but no reordering of floating-point sums: NaN and -inf keep their meaning
  -fno-semantic-interposition  # position-independent code calls and inlines its own functions directly
  $<$<CONFIG:>:-O3>)  # a parent project that names no build type does not want slow kernels
# An index beyond a span or a vector ends a debug build.
target_compile_definitions(tilegrad_options INTERFACE $<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>)

add_library(tilegrad_sanitizer INTERFACE)
if(TILEGRAD_SANITIZE)
  target_compile_options(tilegrad_sanitizer INTERFACE -fsanitize=${TILEGRAD_SANITIZE} -fno-omit-frame-pointer
                                                      -fno-sanitize-recover=all)
  target_link_options(tilegrad_sanitizer INTERFACE -fsanitize=${TILEGRAD_SANITIZE})
endif()

# For code that is loops over numbers, linked after tilegrad_sanitizer. Without optimisation its tests take fifteen times as
# long under a sanitizer. With it, checks of every pointer would take the compiler minutes a file; so they are left to the
# address sanitizer, which is called at every access.
add_library(tilegrad_optimised_loops INTERFACE)
if(TILEGRAD_SANITIZE MATCHES address)
  set(pointers alignment,nonnull-attribute,null,object-size,pointer-overflow,returns-nonnull-attribute,vptr)
  set(calls asan-instrumentation-with-call-threshold=0)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    set(by_calls "SHELL:--param ${calls}")
  else()
    set(by_calls "SHELL:-mllvm -${calls}")
  endif()
  target_compile_options(tilegrad_optimised_loops INTERFACE -O1 -fno-sanitize=${pointers} ${by_calls})
endif()

add_library(tilegrad_warnings INTERFACE)
target_compile_options(tilegrad_warnings INTERFACE -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # False alarms in std::string's operator+, https://gcc.gnu.org/bugzilla/show_bug.cgi?id=105651
  target_compile_options(tilegrad_warnings INTERFACE -Wno-restrict)
endif()
if(TILEGRAD_WERROR)
  target_compile_options(tilegrad_warnings INTERFACE -Werror)
endif()

# Headers are included as "tilegrad/<floor>/<file>.h", in this tree and installed: a link for each floor.
set(TILEGRAD_UMBRELLAS tilegrad.h attention.h)
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/include/tilegrad)
foreach(floor base kernels autograd nn data train)
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/${floor} ${PROJECT_BINARY_DIR}/include/tilegrad/${floor} SYMBOLIC)
endforeach()
foreach(umbrella ${TILEGRAD_UMBRELLAS})
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/include/tilegrad/${umbrella}
                   ${PROJECT_BINARY_DIR}/include/tilegrad/${umbrella} SYMBOLIC)
endforeach()

# tilegrad_unity(<target>): headers and templates that eight files share are compiled once for all eight. So the names in
# the anonymous namespaces of one target must differ.
function(tilegrad_unity target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${TILEGRAD_UNITY} UNITY_BUILD_BATCH_SIZE 8)
endfunction()

# tilegrad_floor(<name> SOURCES <files> [PUBLIC <libraries>] [PRIVATE <libraries>])
# One library tilegrad::<name> for one folder. A floor links what lies below it and nothing else.
function(tilegrad_floor name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(tilegrad_${name} STATIC ${ARG_SOURCES})
  add_library(tilegrad::${name} ALIAS tilegrad_${name})
  set_target_properties(tilegrad_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  if(NOT name STREQUAL kernels)  # whose files compile once for each SIMD target
    tilegrad_unity(tilegrad_${name})
  endif()
  target_compile_features(tilegrad_${name} PUBLIC cxx_std_20)
  target_include_directories(tilegrad_${name} PUBLIC ${PROJECT_BINARY_DIR}/include)
  target_link_libraries(tilegrad_${name} PUBLIC tilegrad_sanitizer ${ARG_PUBLIC}
                                         PRIVATE tilegrad_options tilegrad_warnings ${ARG_PRIVATE})
  # What reads files tells libFuzzer which branches an input took. Kernels would be slower by that alone.
  if(TILEGRAD_FUZZ AND NOT name MATCHES "^(kernels|autograd)$")
    target_compile_options(tilegrad_${name} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
endfunction()
