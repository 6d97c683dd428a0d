#!/usr/bin/env python3
"""What the pages of docs/ name exists: files, headings, and in a link `file`: `name` the name in that file."""

import pathlib
import re
import unittest

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "README.md", *sorted((DOCS / "book").glob("*.md"))]
LINK = re.compile(r"!?\[([^\]]*)\]\(([^)\s]+)\)")


def links(page):
    return [(text, target) for text, target in LINK.findall(page.read_text()) if "://" not in target]


def anchors(page):
    """The headings of a page, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


class TheBook(unittest.TestCase):
    def test_every_file_and_heading_that_is_linked_exists(self):
        for page in PAGES:
            for _, target in links(page):
                with self.subTest(page.name, target=target):
                    path, _, anchor = target.partition("#")
                    self.assertTrue((page.parent / path).exists())
                    if anchor:
                        self.assertIn(anchor, anchors(page.parent / path))

    def test_every_name_that_is_linked_stands_in_its_file(self):
        found = 0
        for page in PAGES:
            for text, target in links(page):
                named = re.fullmatch(r"`([^`]+)`(?:: `([^`]+)`)?", text)
                if not named or not target.startswith("../../"):
                    continue
                with self.subTest(page.name, link=text):
                    self.assertEqual(target, "../../" + named[1])
                    if named[2]:
                        found += 1
                        text = (page.parent / target).read_text()
                        self.assertTrue(re.search(rf"\b{named[2]}\b", text), f"{target} has no {named[2]}")
        self.assertGreater(found, 30)

    def test_every_page_has_a_figure_that_the_script_draws_and_is_in_the_list(self):
        script = "".join(module.read_text() for module in (DOCS / "figures").glob("*.py"))
        index = (DOCS / "README.md").read_text()
        self.assertEqual(len(PAGES), 11)
        for page in PAGES[1:]:
            with self.subTest(page.name):
                self.assertIn(f"(book/{page.name})", index)
                figures = [target for _, target in links(page) if target.endswith(".svg")]
                self.assertEqual(len(figures), 1)
                self.assertIn(f'save("{pathlib.Path(figures[0]).name}")', script)


if __name__ == "__main__":
    unittest.main()
