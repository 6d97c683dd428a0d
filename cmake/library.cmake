# The floors of the library as one: what other projects link and what is installed.
set(TILEGRAD_LIBRARY_FLOORS base kernels autograd nn data)

# tilegrad_whole_library(<target> [STATIC|SHARED]); without a kind, BUILD_SHARED_LIBS decides.
function(tilegrad_whole_library target)
  add_library(${target} ${ARGN})
  foreach(floor ${TILEGRAD_LIBRARY_FLOORS})
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:tilegrad_${floor}>)
  endforeach()
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include>)
  target_link_libraries(${target}
    PUBLIC fmt::fmt nlohmann_json::nlohmann_json tilegrad::random123 $<BUILD_INTERFACE:tilegrad_sanitizer>
    PRIVATE PkgConfig::TILEGRAD_OPENBLAS PkgConfig::TILEGRAD_HWY OpenMP::OpenMP_CXX)
  set_target_properties(${target} PROPERTIES
    LINKER_LANGUAGE CXX
    POSITION_INDEPENDENT_CODE ON
    VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "SHARED_LIBRARY")
    set(exports ${PROJECT_SOURCE_DIR}/cmake/exports.map)
    target_link_options(${target} PRIVATE LINKER:--version-script=${exports})
    set_target_properties(${target} PROPERTIES LINK_DEPENDS ${exports})
  endif()
endfunction()

tilegrad_whole_library(tilegrad_library)
add_library(tilegrad::tilegrad ALIAS tilegrad_library)
set_target_properties(tilegrad_library PROPERTIES OUTPUT_NAME tilegrad EXPORT_NAME tilegrad)
