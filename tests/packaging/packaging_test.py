#!/usr/bin/env python3
"""The library as other projects see it. Installs a built tree once, moves it, and uses it in small projects."""

import argparse
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parent.parent
OPTIONS = argparse.Namespace()


def run(*command, **environment):
    """Output of a command that succeeds."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          env={**os.environ, **environment})
    if done.returncode != 0:
        raise AssertionError(f"{shlex.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def configure(source, build, *options):
    return run(OPTIONS.cmake, "-G", "Ninja", "-S", source, "-B", build,
               f"-DCMAKE_CXX_COMPILER={OPTIONS.compiler}", *options)


def install(prefix, *options):
    run(OPTIONS.cmake, "--install", OPTIONS.build, "--prefix", prefix, *options)


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


class Packaging(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="tilegrad-packaging-"))
        install(cls.folder / "first")
        # Where it was installed does not exist any more, as the build tree will not for those who use a package.
        cls.prefix = cls.folder / "a place with spaces"
        (cls.folder / "first").rename(cls.prefix)
        cls.library = next(cls.prefix.rglob("libtilegrad.a")).parent  # lib, or lib64, or one of Debian's

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def compile_example(self, output, *flags):
        run(OPTIONS.compiler, "-std=c++20", SOURCE / "examples/attention.cpp", "-o", output, *flags)
        self.assertRegex(run(output), r"^out\[0\] = -?\d\.\d{4}, dq\[0\] = ")

    def pkg_config(self, *options):
        return shlex.split(run("pkg-config", *options, "tilegrad", PKG_CONFIG_PATH=str(self.library / "pkgconfig")))

    def test_components_hold_what_runs_and_what_compiles(self):
        install(self.folder / "runtime", "--component", "Runtime")
        install(self.folder / "development", "--component", "Development")
        runtime, development = files_below(self.folder / "runtime"), files_below(self.folder / "development")
        self.assertFalse(runtime & development)
        self.assertEqual(runtime | development, files_below(self.prefix))
        self.assertIn("bin/tilegrad", runtime)
        self.assertIn("tilegrad 0.", run(self.folder / "runtime/bin/tilegrad", "--version"))
        self.assertEqual([name for name in runtime if name.endswith((".h", ".a", ".cmake", ".pc"))], [])
        library = self.library.relative_to(self.prefix).as_posix()
        for name in ("include/tilegrad/tilegrad.h", "include/tilegrad/nn/module.h", f"{library}/libtilegrad.a",
                     f"{library}/cmake/tilegrad/tilegrad-config.cmake", f"{library}/pkgconfig/tilegrad.pc"):
            self.assertIn(name, development)

    def test_headers_are_those_of_the_tree_and_compile(self):
        installed = {name.removeprefix("include/tilegrad/")
                     for name in files_below(self.prefix) if name.startswith("include/")}
        floors = {path.relative_to(SOURCE).as_posix() for floor in ("base", "kernels", "autograd", "nn", "data")
                  for path in (SOURCE / floor).rglob("*.h") if not path.name.endswith("-inl.h")}
        self.assertEqual(installed, floors | {"tilegrad.h", "attention.h"})
        everything = self.folder / "everything.cpp"
        everything.write_text("".join(f'#include "tilegrad/{name}"\n' for name in sorted(installed)))
        run(OPTIONS.compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", everything,
            *self.pkg_config("--cflags"))

    def test_no_installed_file_names_the_trees_it_came_from(self):
        for name in files_below(self.prefix):
            if name.endswith((".h", ".cmake", ".pc")):
                text = (self.prefix / name).read_text()
                for tree in (str(OPTIONS.build), str(SOURCE), "/first"):
                    self.assertNotIn(tree, text, name)
        self.assertNotRegex(run("readelf", "-d", self.prefix / "bin/tilegrad"), "RPATH|RUNPATH")

    def test_find_package_serves_a_project_with_headers_of_the_same_names(self):
        build = self.folder / "consumer"
        configure(HERE / "consumer", build, f"-DCMAKE_PREFIX_PATH={self.prefix}")
        run(OPTIONS.cmake, "--build", build)
        self.assertEqual(run(build / "consumer"), "own error, own module, gradient 6, "
                                                  "add: shapes differ: (3) and (2)\n")

    def test_find_package_refuses_another_minor_version(self):
        project = self.folder / "later"
        project.mkdir()
        (project / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.25)\nproject(later LANGUAGES CXX)\n"
                                                "find_package(tilegrad 0.0 CONFIG REQUIRED)\n")
        with self.assertRaisesRegex(AssertionError, 'compatible with requested version\n? *"0.0"'):
            configure(project, project / "build", f"-DCMAKE_PREFIX_PATH={self.prefix}")

    def test_find_package_without_a_dependency_is_not_found(self):
        project = self.folder / "bare"
        project.mkdir()
        (project / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.25)\nproject(bare LANGUAGES CXX)\n"
                                                "find_package(tilegrad CONFIG)\n"
                                                'message(STATUS "found: ${tilegrad_FOUND}")\n')
        for missing in ("fmt", "nlohmann_json", "OpenMP", "PkgConfig"):
            output = configure(project, project / "build", "--fresh", f"-DCMAKE_PREFIX_PATH={self.prefix}",
                               f"-DCMAKE_DISABLE_FIND_PACKAGE_{missing}=ON")
            self.assertRegex(output, "(?i)found: (false|0)\n", missing)

    def test_pkg_config_gives_all_that_a_program_needs(self):
        self.compile_example(self.folder / "by_pkg_config", *self.pkg_config("--cflags", "--libs"))

    def test_static_library_goes_into_a_shared_one(self):
        whole = ["-Wl,--whole-archive", self.library / "libtilegrad.a", "-Wl,--no-whole-archive"]
        run(OPTIONS.compiler, "-shared", "-Wl,-z,defs", "-o", self.folder / "plugin.so", *whole,
            *self.pkg_config("--libs"))

    def test_shared_library_exports_the_namespace_alone(self):
        names = [line.split(maxsplit=2)[2] for line in
                 run("nm", "--dynamic", "--defined-only", OPTIONS.shared).splitlines()]
        strange = [name for name in names if not re.match(r"_Z(NK?|T.N|GVN)8tilegrad", name)]
        self.assertEqual(strange, [])
        self.assertGreater(len(names), 100)

    def test_shared_library_serves_a_program(self):
        flags = [f"-I{self.prefix / 'include'}", OPTIONS.shared, "-lfmt", f"-Wl,-rpath,{OPTIONS.shared.parent}"]
        self.compile_example(self.folder / "with_shared", *flags)

    def check_subproject(self, build, *options):
        configure(HERE / "subproject", build, f"-DTILEGRAD_SOURCE={SOURCE}", *options)
        self.assertEqual((build / "state.txt").read_text(),
                         "build type: \nflags: \nstandard: \nshared: \nprogram: 0\ntests: 0\n")
        self.assertRegex((build / "CMakeCache.txt").read_text(), r"(?m)^CMAKE_BUILD_TYPE:\w+=$")
        commands = {pathlib.Path(entry["file"]).name: shlex.split(entry["command"])
                    for entry in json.loads((build / "compile_commands.json").read_text())}
        # A source that has nothing to do with the library is compiled as if it were not there; one that uses it is told
        # the language and where headers are, but nothing about code or warnings.
        flags = {name: {word for word in command if word.startswith("-") and word not in ("-o", "-c")}
                 for name, command in commands.items()}
        self.assertEqual(flags["stranger.cpp"], set())
        self.assertIn("-std=gnu++20", flags["user.cpp"])
        self.assertEqual({flag for flag in flags["user.cpp"] if flag.startswith(("-f", "-m", "-O", "-W", "-g"))}, set())
        # Though the parent names no build type, the library is optimised.
        self.assertLessEqual({"-O3", "-fPIC"}, flags["parallel.cpp"])
        run(OPTIONS.cmake, "--build", build, "--target", "CMakeFiles/user.dir/user.cpp.o")
        rules = "".join(path.read_text() for path in build.rglob("cmake_install.cmake"))
        self.assertEqual(rules.count("file(INSTALL"), 1)  # the parent's own

    def test_add_subdirectory_leaves_the_parent_as_it_was(self):
        self.check_subproject(self.folder / "subdirectory")

    def test_fetch_content_leaves_the_parent_as_it_was(self):
        self.check_subproject(self.folder / "fetched", "-DFETCH=ON")


def cannot_install():
    """Why Debian packages cannot be tried here; None if they can."""
    if os.geteuid() != 0:
        return "needs root, as dpkg does"
    missing = [tool for tool in ("dpkg", "dpkg-deb", "dpkg-shlibdeps", "cpack") if not shutil.which(tool)]
    return f"{missing[0]} is missing" if missing else None


@unittest.skipIf(cannot_install(), f"Debian packages: {cannot_install()}")
class DebianPackages(unittest.TestCase):
    """Packages are installed into a folder, against the list of what this system has; the system stays as it is."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="tilegrad-packages-"))
        run("cpack", "--config", OPTIONS.build / "CPackConfig.cmake", "-B", cls.folder)
        cls.root, cls.records = cls.folder / "root", cls.folder / "records"
        cls.root.mkdir()
        (cls.records / "updates").mkdir(parents=True)
        (cls.records / "info").mkdir()
        shutil.copy("/var/lib/dpkg/status", cls.records)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def package(self, name):
        return next(self.folder.glob(f"{name}_*.deb"))

    def dpkg(self, *arguments):
        return run("dpkg", f"--instdir={self.root}", f"--admindir={self.records}", f"--log={self.folder / 'log'}",
                   "--force-script-chrootless", *arguments)

    def test_packages_install_serve_the_example_and_leave_nothing(self):
        self.dpkg("--install", self.package("tilegrad"), self.package("libtilegrad-dev"))
        self.assertIn("tilegrad 0.", run(self.root / "usr/bin/tilegrad", "--version"))
        flags = shlex.split(run("pkg-config", "--cflags", "--libs", "tilegrad",
                                PKG_CONFIG_PATH=str(self.root / "usr/lib/pkgconfig")))
        run(OPTIONS.compiler, "-std=c++20", SOURCE / "examples/attention.cpp", "-o", self.folder / "example", *flags)
        self.assertIn("out[0] = ", run(self.folder / "example"))
        self.dpkg("--remove", "tilegrad", "libtilegrad-dev")
        self.assertEqual(files_below(self.root), set())

    def test_packages_name_what_they_need(self):
        depends = run("dpkg-deb", "--field", self.package("tilegrad"), "Depends")
        for library in ("libc6", "libstdc++6", "libopenblas0-openmp | libopenblas0", "libhwy", "libfmt"):
            self.assertIn(library, depends)
        depends = run("dpkg-deb", "--field", self.package("libtilegrad-dev"), "Depends")
        for library in ("libopenblas", "libhwy", "libfmt", "librandom123", "nlohmann-json3"):
            self.assertRegex(depends, rf"\b{library}(-openmp)?-dev\b")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cmake", default="cmake")
    parser.add_argument("--compiler", default="c++")
    parser.add_argument("--build", type=pathlib.Path, required=True, help="a built tree")
    parser.add_argument("--shared", type=pathlib.Path, required=True, help="the shared library")
    _, rest = parser.parse_known_args(namespace=OPTIONS)
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)


main()
