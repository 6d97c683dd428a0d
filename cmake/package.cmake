# ./dev package: two Debian packages, `tilegrad` (the program) and `libtilegrad-dev` (what compiles and links).
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME tilegrad)
set(CPACK_PACKAGE_CONTACT "the tilegrad authors")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL Runtime Development)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)

set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME tilegrad)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION math)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/package_shlibs.cmake)
set(CPACK_DEBIAN_RUNTIME_DESCRIPTION "This package holds the program, which trains
transformers with naive and flash attention and sets loss, time and memory side by side.")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libtilegrad-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "libfmt-dev, nlohmann-json3-dev, librandom123-dev, libhwy-dev, \
libopenblas-openmp-dev | libopenblas-dev")
if(BUILD_SHARED_LIBS)
  string(APPEND CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS ", tilegrad (= ${PROJECT_VERSION})")
endif()
set(CPACK_DEBIAN_DEVELOPMENT_DESCRIPTION "This package holds headers and library for C++:
tensors, autograd, flash attention with every option and its gradients, transformer layers.")

foreach(package "Runtime;tilegrad" "Development;libtilegrad-dev")
  list(POP_FRONT package component)
  set(folder ${CMAKE_INSTALL_DATADIR}/doc/${package})
  install(FILES LICENSE DESTINATION ${folder} RENAME copyright COMPONENT ${component})
  install(FILES NOTICE DESTINATION ${folder} COMPONENT ${component})
endforeach()
include(CPack)
