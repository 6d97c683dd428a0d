# What every target of the project compiles with. Nothing writes to CMAKE_CXX_FLAGS.
add_library(tilegrad_options INTERFACE)
target_compile_features(tilegrad_options INTERFACE cxx_std_20)
# No errno from math functions, and no reordering of floating-point sums: NaN and -inf keep their meaning.
target_compile_options(tilegrad_options INTERFACE -fno-math-errno)
# An index beyond a span or a vector ends a debug build.
target_compile_definitions(tilegrad_options INTERFACE $<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>)
if(TILEGRAD_SANITIZE)
  target_compile_options(tilegrad_options INTERFACE -fsanitize=${TILEGRAD_SANITIZE} -fno-omit-frame-pointer
                                                    -fno-sanitize-recover=all)
  target_link_options(tilegrad_options INTERFACE -fsanitize=${TILEGRAD_SANITIZE})
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
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/include/tilegrad)
foreach(floor base kernels autograd nn data train)
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/${floor} ${PROJECT_BINARY_DIR}/include/tilegrad/${floor} SYMBOLIC)
endforeach()
foreach(umbrella tilegrad.h attention.h)
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/include/tilegrad/${umbrella}
                   ${PROJECT_BINARY_DIR}/include/tilegrad/${umbrella} SYMBOLIC)
endforeach()

# tilegrad_floor(<name> SOURCES <files> [PUBLIC <libraries>] [PRIVATE <libraries>])
# One library tilegrad::<name> for one folder. A floor links what lies below it and nothing else.
function(tilegrad_floor name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(tilegrad_${name} ${ARG_SOURCES})
  add_library(tilegrad::${name} ALIAS tilegrad_${name})
  target_include_directories(tilegrad_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include>)
  target_link_libraries(tilegrad_${name} PUBLIC tilegrad_options ${ARG_PUBLIC}
                                         PRIVATE tilegrad_warnings ${ARG_PRIVATE})
endfunction()
