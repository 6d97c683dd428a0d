"""The one source of an exercise, exercises/NN_name.cpp and NN_name.md, and what is cut from it.

The part of the .cpp before `// CHECK` is the exercise. In it, `// BEGIN SOLUTION` and `// END SOLUTION` enclose what a
learner writes, and a line `//! id: code` says how the line above it reads in the known mistake `id` (nothing: the line is
missing). The rest of the file checks it. The page ends at `<!-- HINTS -->`; the hints after it are divided by `---`.
"""

import pathlib
import re

ROOM = pathlib.Path(__file__).resolve().parent
BEGIN, END, CHECK = "// BEGIN SOLUTION", "// END SOLUTION", "\n// CHECK\n"
MISTAKE = re.compile(r"\s*//! ([\w-]+):(.*)")
SIGNATURE = re.compile(r"^[A-Za-z][\w:<>&*, ]*?[ &*](\w+)\(", re.MULTILINE)


class Exercise:
    def __init__(self, source):
        self.file = source.name
        self.name = source.stem
        self.number = int(self.name[:2])
        self.text, self.check = source.read_text().split(CHECK)
        page, hints = source.with_suffix(".md").read_text().split("<!-- HINTS -->\n")
        self.page = page.rstrip() + "\n"
        self.hints = [hint.strip() for hint in hints.split("\n---\n")]
        self.title = page.splitlines()[0].split(": ", 1)[1]

    def regions(self):
        """The lines of each solution."""
        lines, regions, inside = self.text.splitlines(), [], False
        for line in lines:
            if line.strip() == BEGIN:
                regions.append([])
            inside = inside and line.strip() != END
            if inside and not MISTAKE.match(line):
                regions[-1].append(line)
            inside = inside or line.strip() == BEGIN
        return regions

    def stub(self):
        """What a learner starts from."""
        out, inside, function = [], False, ""
        for line in self.text.splitlines():
            if found := SIGNATURE.match(line):
                function = found.group(1)
            if line.strip() == BEGIN:
                out.append(f'  todo("{function}");  // your code in place of this line')
                inside = True
            if not inside:
                out.append(line)
            inside = inside and line.strip() != END
        return "\n".join(out) + "\n"

    def solution(self):
        return self.with_mistake(None)

    def with_mistake(self, mistake):
        """The solution, with the lines of one known mistake if it is given."""
        out, code_at, replaced = [], None, False
        for line in self.text.splitlines():
            if line.strip() in (BEGIN, END):
                continue
            found = MISTAKE.match(line)
            if not found:
                out.append(line)
                code_at, replaced = len(out) - 1, False
            elif found.group(1) == mistake:
                code = found.group(2).strip()
                if replaced:
                    out.append(code)
                else:
                    out[code_at] = code
                replaced = True
        return "\n".join(out) + "\n"

    def mistakes(self):
        """The names of the known mistakes, in the order of the table that describes them."""
        table = self.check[self.check.index("kMistakes") : self.check.index("kCases")]
        return re.findall(r'^ {4}\{"([\w-]+)"', table, re.MULTILINE)

    def functions(self):
        """The names of the functions that a learner writes."""
        table = self.check[self.check.index("struct Functions") :]
        return re.findall(r"\(\*(\w+)\)", table[: table.index("};")])

    def checker(self):
        """The program that checks it, but for the learner's functions."""
        names = self.functions()
        variants = [("reference", self.solution())]
        variants += [(f"mistake_{i}", self.with_mistake(m)) for i, m in enumerate(self.mistakes())]
        table = ",\n".join(f"    {{{', '.join(f'&{space}::{name}' for name in names)}}}" for space, _ in variants)
        loss = "&check::loss" if "\ndouble loss(" in self.check else "{}"
        epilogue = "[](int who) { return check::epilogue(functions(who)); }" if "\nbool epilogue(" in self.check else "{}"
        tolerance = ", .tolerance = check::kTolerance" if "kTolerance" in self.check else ""
        declarations = "\n".join(f"std::remove_pointer_t<decltype(check::Functions::{name})> {name};" for name in names)
        return f"""#include "check/check.h"
{"".join(in_namespace(space, text) for space, text in variants)}
{self.check.replace('#include "sort_task.h"', '#include "check/sort_task.h"')}
{declarations}
namespace {{
const check::Functions kRight[] = {{
{table}}};
const check::Functions& functions(int who) {{
  static const check::Functions mine = {{{", ".join(f"&::{name}" for name in names)}}};
  return who == check::kMine ? mine : kRight[who == check::kRightOne ? 0 : who + 1];
}}
check::Tensors run(int who, const check::Case& c, check::Tensors& in) {{ return check::run(functions(who), c, in); }}
}}  // namespace
int main(int argc, char** argv) {{
  return check::main_of({{.name = "exercise {self.number}", .cases = check::kCases, .mistakes = check::kMistakes,
                         .inputs = check::inputs, .run = run, .loss = {loss},
                         .epilogue = {epilogue}{tolerance}}}, argc, argv);
}}
"""


def in_namespace(space, text):
    return f"namespace {space} {{\n" + text.replace('#include "course.h"\n', "") + f"}}  // namespace {space}\n"


def all_exercises():
    return [Exercise(source) for source in sorted((ROOM / "exercises").glob("*.cpp"))]


def references(numbers, space):
    """The solutions of some exercises in a namespace of their own."""
    return "".join(in_namespace(space, e.solution()) for e in all_exercises() if e.number in numbers)


def heads():
    """head_forward and head_backward, by the solutions."""
    return f'#include "course.h"\n{references((5, 7), "heads")}using namespace heads;\n#include "check/heads.h"\n'


if __name__ == "__main__":  # for tests/learn: all solutions, and head_forward and head_backward by them
    print('#include "course.h"')
    print(references(range(1, 9), "reference"))
    print('namespace reference_heads { using reference::flash_forward, reference::flash_backward; }')
    print('using namespace reference_heads;\n#include "check/heads.h"')
