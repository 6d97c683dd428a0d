# cmake --install: Runtime is the program (and the library, if it is shared), Development is what compiles and links.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

install(TARGETS tilegrad_library EXPORT tilegrad-targets
  ARCHIVE COMPONENT Development
  LIBRARY COMPONENT Runtime NAMELINK_COMPONENT Development
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(TILEGRAD_BUILD_PROGRAM)
  install(TARGETS tilegrad RUNTIME COMPONENT Runtime)
endif()

# Files "-inl.h" are parts of sources, compiled anew for each SIMD target.
foreach(floor ${TILEGRAD_LIBRARY_FLOORS})
  install(DIRECTORY ${floor} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tilegrad COMPONENT Development
          FILES_MATCHING PATTERN "*.h" PATTERN "*-inl.h" EXCLUDE)
endforeach()
list(TRANSFORM TILEGRAD_UMBRELLAS PREPEND include/tilegrad/ OUTPUT_VARIABLE umbrellas)
install(FILES ${umbrellas} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tilegrad COMPONENT Development)

set(config_folder ${CMAKE_INSTALL_LIBDIR}/cmake/tilegrad)
install(EXPORT tilegrad-targets NAMESPACE tilegrad:: DESTINATION ${config_folder} COMPONENT Development)
configure_package_config_file(cmake/tilegrad-config.cmake.in tilegrad-config.cmake INSTALL_DESTINATION ${config_folder}
                              NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(tilegrad-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tilegrad-config.cmake ${PROJECT_BINARY_DIR}/tilegrad-config-version.cmake
        DESTINATION ${config_folder} COMPONENT Development)

# A static library asks its user for what a shared one has linked itself.
set(pc_requires "")
set(pc_libs "")
if(NOT BUILD_SHARED_LIBS)
  set(pc_requires "openblas libhwy")
  set(pc_libs "${OpenMP_CXX_FLAGS}")
endif()
set(pc_cflags "")
if(NOT TILEGRAD_RANDOM123_INCLUDE_DIR IN_LIST CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES)
  set(pc_cflags " -I${TILEGRAD_RANDOM123_INCLUDE_DIR}")
endif()
file(RELATIVE_PATH prefix_from_pc /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" prefix_from_pc "${prefix_from_pc}")
configure_file(cmake/tilegrad.pc.in tilegrad.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/tilegrad.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT Development)
