"""Compiles exercises and runs their checks. What belongs to the course alone is compiled once, in build/learn."""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile

import exercises

ROOM = exercises.ROOM
TREE = ROOM.parent
COMPILER = os.environ.get("CXX", "g++")
FLAGS = ["-std=c++20", "-fno-diagnostics-color", f"-I{ROOM}"]
# Parameters and variables of a half-written function are unused; what else a compiler warns of may be the mistake.
LEARNER_FLAGS = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wall", "-Wextra",
                 "-Wno-unused-parameter", "-Wno-unused-variable", "-Wno-unused-but-set-variable"]  # fmt: skip
RIGHT, WRONG, NOT_WRITTEN = 0, 1, 3  # exit codes of a check


class LearnError(Exception):
    """An error of the user: one line."""


def run(arguments, **options):
    try:
        return subprocess.run(arguments, capture_output=True, text=True, errors="replace", **options)
    except FileNotFoundError:
        raise LearnError(f"{arguments[0]} is missing; run ./dev setup, or name another compiler in CXX") from None


# --- what is compiled once ------------------------------------------------------------------------------------


def sources():
    """Of the course's own part: the name of each object, and its text."""
    text = {name: (ROOM / path).read_text() for name, path in
            (("course", "course.cpp"), ("check", "check/check.cpp"), ("cases", "check/cases.cpp"))}  # fmt: skip
    text["heads"] = exercises.heads()
    for exercise in exercises.all_exercises():
        text[exercise.name] = exercise.checker()
    return text


def course_folder(text):
    """A folder for the objects of just these sources: another version of the course has another one."""
    headers = [path.read_text() for path in sorted(ROOM.glob("**/*.h"))]
    version = run([COMPILER, "--version"]).stdout
    known = hashlib.sha256("\0".join([version, *headers, *text.values()]).encode()).hexdigest()[:16]
    return TREE / "build" / "learn" / known


@contextlib.contextmanager
def lock(folder):
    """One process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def compile_object(folder, name, text):
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        source, made = pathlib.Path(scratch, name + ".cpp"), pathlib.Path(scratch, name + ".o")
        source.write_text(text)
        result = run([COMPILER, *FLAGS, "-O1", f"-I{ROOM / 'check'}", "-c", source, "-o", made])
        if result.returncode != 0:
            raise LearnError(f"the course itself does not compile: {result.stderr}")
        made.rename(folder / made.name)


def prepare(say=print):
    """The folder of the course's objects, which are made unless they are there."""
    text = sources()
    folder = course_folder(text)
    try:
        with lock(folder):
            missing = [name for name in text if not (folder / (name + ".o")).exists()]
            if missing:
                say(f"preparing the checks, once: {len(missing)} files to compile")
                with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
                    list(pool.map(lambda name: compile_object(folder, name, text[name]), missing))
    except OSError as error:
        raise LearnError(f"{folder}: {error.strerror}") from None
    for other in folder.parent.iterdir():  # of earlier versions of the course
        if other.is_dir() and other != folder and re.fullmatch(r"[0-9a-f]{16}", other.name):
            shutil.rmtree(other, ignore_errors=True)
    return folder


# --- a learner's file -----------------------------------------------------------------------------------------


def first_error(messages, file):
    """Of what a compiler says: the first error in the learner's file, with its line, or else the first of all."""
    blocks = re.split(r"^(?=\S.*?:\d+:\d+: )", messages, flags=re.MULTILINE)
    errors = [block for block in blocks if re.match(r".*?: (fatal )?error: ", block)]
    own = [block for block in errors if block.startswith(str(file))]
    if not errors:
        return messages.strip()
    block = (own or errors)[0].rstrip()
    block = block.split("\nIn file included from")[0].split("\n" + str(file) + ": In ")[0]
    more = f"\n(and {len(errors) - 1} more, which may vanish with it)" if len(errors) > 1 else ""
    return block.replace(str(file), file.name) + more


def link_error(messages, exercise):
    missing = re.findall(r"undefined reference to [`'](.*?)'", messages)
    twice = re.findall(r"multiple definition of [`'](.*?)'", messages)
    if twice:
        return f"the function {twice[0]} exists twice; give yours another name"
    own = [name for name in missing if name.split("(")[0] in exercise.functions()]
    if own:
        readable = re.sub(r"course::(\w+)Of<(double( const)?)>", lambda m: ("Const" if m[3] else "") + m[1], own[0])
        return f"the function {readable} is missing; the page says which functions there are, with which arguments"
    return messages.strip()


def explain(result, file):
    """What a check that was stopped, by a sanitizer or a signal, was stopped for."""
    found = re.search(r"^\S*?([^/\s]+):(\d+):\d+: runtime error: (.*)$", result.stderr, re.MULTILINE)
    if found:
        return f"{found[1]}:{found[2]}: {found[3]}"
    found = re.search(r"ERROR: AddressSanitizer:? ([\w-]+)", result.stderr)
    if found:
        line = re.search(rf"{re.escape(file.name)}:(\d+)", result.stderr)
        where = f"{file.name}:{line[1]}" if line else file.name
        return f"{where}: {EXPLANATIONS.get(found[1], 'memory is used wrongly')} ({found[1]})"
    if result.returncode < 0:
        return f"it was stopped by signal {-result.returncode}, {signal.Signals(-result.returncode).name}"
    return result.stderr.strip() or f"it ended with exit code {result.returncode}"


EXPLANATIONS = {
    "heap-buffer-overflow": "reads or writes outside of an array",
    "stack-buffer-overflow": "reads or writes outside of an array",
    "global-buffer-overflow": "reads or writes outside of an array",
    "heap-use-after-free": "uses memory that was freed",
    "stack-use-after-return": "uses a variable of a function that has returned",
    "stack-use-after-scope": "uses a variable that no longer exists",
    "stack-overflow": "a function calls itself without an end",
    "SEGV": "reads or writes memory that is not its own",
    "FPE": "divides an integer by zero",
    "allocation-size-too-big": "asks for far too much memory; is a size negative?",
    "calloc-overflow": "asks for far too much memory; is a size negative?",
    "ABRT": "it was aborted",
}


# --- for the program ------------------------------------------------------------------------------------------


def keep_to_itself(made):
    """Hides a learner's helpers: those of two exercises may have the same name."""
    names = "|".join(f"{len(f)}{f}" for e in exercises.all_exercises() for f in e.functions())
    symbols = run(["nm", "--defined-only", "--extern-only", "--format=posix", made]).stdout.split("\n")
    strong = [line.split()[0] for line in symbols if re.match(r"\S+ [TDBR] ", line)]
    private = [name for name in strong if not re.match(f"_Z({names})", name)]
    run(["objcopy", *(f"--localize-symbol={name}" for name in private), made])


def private_object(path, flags, headers, folder):
    """The object of one file, made again only if something that it is made of changed."""
    inputs = [COMPILER, *flags, path.read_text(errors="replace"), headers]
    made = folder / f"{path.stem}-{hashlib.sha256(chr(0).join(inputs).encode()).hexdigest()[:16]}.o"
    if not made.exists():
        new = made.with_suffix(".new")
        compiled = run([COMPILER, *flags, "-c", path, "-o", new])
        if compiled.returncode != 0:
            raise LearnError(f"{path.name} does not compile:\n{first_error(compiled.stderr, path)}")
        if path.parent != ROOM:
            keep_to_itself(new)
        new.rename(made)
    return made


def build_mine(folder):
    """folder/.learn/mine.so: the learner's exercises 5 to 8 behind the functions of train/run/mine_abi.h."""
    flags = [*FLAGS, f"-I{TREE}", "-O2", "-march=native", "-DNDEBUG", "-fPIC"]
    files = [folder / e.file for e in exercises.all_exercises() if 5 <= e.number <= 8]
    headers = "".join(p.read_text() for p in [*sorted(ROOM.glob("**/*.h")), TREE / "train" / "run" / "mine_abi.h"])
    kept = folder / ".learn" / "objects"
    with lock(kept):
        parts = [private_object(path, flags, headers, kept) for path in [*files, ROOM / "mine.cpp", ROOM / "course.cpp"]]
        made, stamp = folder / ".learn" / "mine.so", kept / "linked"
        names = " ".join(part.name for part in parts)
        if made.exists() and stamp.exists() and stamp.read_text() == names:
            return
        linked = run([COMPILER, "-shared", "-Wl,-z,defs", "-Wl,-Bsymbolic", *parts, "-o", kept / "mine.new"])
        if linked.returncode != 0:
            missing = re.findall(r"undefined reference to [`'](\w+)\(", linked.stderr)
            raise LearnError(f"the function {missing[0]} is missing" if missing else linked.stderr.strip())
        (kept / "mine.new").rename(made)
        stamp.write_text(names)
        for old in sorted(kept.glob("*.o"), key=lambda path: path.stat().st_mtime)[:-24]:
            if old not in parts:
                old.unlink()


# --- a check --------------------------------------------------------------------------------------------------


def check(exercise, file, objects, time_limit=30, arguments=()):
    """Compiles the learner's file alone and checks it: the exit code, and what to show."""
    with tempfile.TemporaryDirectory() as scratch:
        made, program = pathlib.Path(scratch, "mine.o"), pathlib.Path(scratch, "check")
        compiled = run([COMPILER, *FLAGS, *LEARNER_FLAGS, "-c", file, "-o", made])
        if compiled.returncode != 0:
            return WRONG, f"{file.name} does not compile:\n{first_error(compiled.stderr, file)}"
        parts = [objects / (name + ".o") for name in (exercise.name, "check", "cases", "course", "heads")]
        linked = run([COMPILER, "-fsanitize=address,undefined", made, *parts, "-o", program])
        if linked.returncode != 0:
            return WRONG, f"{file.name}: {link_error(linked.stderr, exercise)}"
        # Leaks are no mistake of an exercise, and a debugger around it would make them an error.
        environment = dict(os.environ, ASAN_OPTIONS="detect_leaks=0", UBSAN_OPTIONS="print_stacktrace=0")
        try:
            result = run([program, *arguments], env=environment, timeout=time_limit)
        except subprocess.TimeoutExpired:
            return WRONG, f"{file.name}: no end after {time_limit} s; is there a loop that never stops?"
    if result.returncode in (RIGHT, WRONG, NOT_WRITTEN) and not result.stderr:
        warning = re.search(r"^.*?:(\d+):\d+: warning: (.*)$", compiled.stderr, re.MULTILINE)
        hint = f"\n  the compiler warns: {file.name}:{warning[1]}: {warning[2]}" if warning else ""
        return result.returncode, result.stdout.rstrip() + (hint if result.returncode == WRONG else "")
    return WRONG, f"{result.stdout}{exercise.name}: {explain(result, file)}"
