# Run by CPack before it looks for the packages that the program's shared libraries come from. Debian names for OpenBLAS
# the package that stands for any build of it; the one for OpenMP alone does as well.
file(WRITE ${CPACK_TEMPORARY_DIRECTORY}/Runtime/debian/shlibs.local
     "libopenblas 0 libopenblas0-openmp | libopenblas0\n")
