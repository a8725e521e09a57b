#!/usr/bin/env python3
"""check.py EVERMESH NODE: whether what the documents say is there: links, anchors, files, steps, flags, metrics, error codes.

Every Markdown file of the project is read for its links; the README and docs/ also for what they name in `code`.
"""

import html
import re
import subprocess
import sys
import urllib.request
from functools import cache
from pathlib import Path

from parse import ROOT, blocks, documents

SKIPPED = {"target", "node_modules", ".git", ".venv", "evermesh-data", "vendor"}
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
IMAGE = re.compile(r"<(?:img|source)\b[^>]*\b(?:src|srcset)=\"([^\"\s]+)")
# What begins like this in `code` is a path of the project.
TREES = ("src", "tests", "docs", "load-tests", "deploy", "openapi", "web", "benches", "examples", "migrations")
PATH = re.compile(rf"^(?:{'|'.join(TREES)})/[\w./-]*$")


def main() -> int:
    evermesh, node = sys.argv[1:]
    wrong: list[str] = []
    links = 0
    for file in sorted(markdown_files(ROOT)):
        for line, target in links_of(file):
            links += 1
            why = broken(file, target)
            if why:
                wrong.append(f"{file.relative_to(ROOT)}:{line}: {target}: {why}")
    names = Names(evermesh, node)
    named = 0
    for document in documents():
        text = document.read_text()
        for line, code in codes_of(text):
            why = names.wrong(code)
            named += 1
            if why:
                wrong.append(f"{document.relative_to(ROOT)}:{line}: `{code}`: {why}")
        for block in blocks(text)[0]:
            wrong += [f"{document.relative_to(ROOT)}:{block.line}: {why}" for why in names.wrong_flags(block)]
    wrong += names.untold() + deployed(names)
    for why in wrong:
        print(why)
    print(f"{links} links, {named} names in code; {len(wrong)} wrong")
    return bool(wrong) or links == 0


def markdown_files(folder: Path):
    for entry in folder.iterdir():
        if entry.name in SKIPPED or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from markdown_files(entry)
        elif entry.suffix == ".md":
            yield entry


def without_comments(text: str) -> str:
    return re.sub(r"<!--.*?-->", lambda match: "\n" * match[0].count("\n"), text, flags=re.S)


def links_of(file: Path):
    prose = without_comments(blocks(file.read_text())[1])
    for number, line in enumerate(prose.splitlines(), 1):
        line = re.sub(r"`[^`]*`", lambda match: "`" * len(match[0]), line) if "](" not in line else line
        for match in [*LINK.finditer(line), *IMAGE.finditer(line)]:
            yield number, match[1]


def broken(file: Path, target: str) -> str | None:
    if re.match(r"^[a-z][a-z+.-]*:", target):
        return None
    path, _, anchor = target.partition("#")
    to = (file.parent / path).resolve() if path else file
    if not to.exists():
        return "is not there"
    if not to.is_relative_to(ROOT):
        return "is outside the project"
    if anchor and to.suffix == ".md" and anchor not in anchors(to):
        return f"has no heading for #{anchor}"
    return None


@cache
def anchors(file: Path) -> set[str]:
    """The anchors that GitHub gives the headings: small letters, without punctuation, a hyphen for each space, numbered when repeated."""
    found: set[str] = set()
    for line in blocks(file.read_text())[1].splitlines():
        heading = re.match(r"^#{1,6}\s+(.*?)\s*#*$", line)
        if not heading:
            continue
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", html.unescape(heading[1]))
        base = re.sub(r"[^\w\- ]", "", text.lower().replace("`", "")).replace(" ", "-")
        anchor, count = base, 0
        while anchor in found:
            count += 1
            anchor = f"{base}-{count}"
        found.add(anchor)
    return found


def codes_of(text: str):
    for number, line in enumerate(without_comments(blocks(text)[1]).splitlines(), 1):
        for match in re.finditer(r"`([^`]+)`", line):
            yield number, match[1]


class Names:
    """What the program and the project know under a name."""

    def __init__(self, evermesh: str, node: str) -> None:
        self.evermesh = evermesh
        self.metrics = set(re.findall(r"^(evermesh_\w+)", fetch(f"{node}/metrics"), re.M))
        self.problems = set(re.findall(r'href="/problems/([\w-]+)"', fetch(f"{node}/problems")))
        self.steps = set(re.search(r"^STEPS=\((.*)\)$", (ROOT / "test").read_text(), re.M)[1].split())
        self.variables = self.variables_known()
        self.told = "".join(document.read_text() for document in documents())

    def variables_known(self) -> set[str]:
        files = [*(ROOT / "src").rglob("*.rs"), *(ROOT / "examples").rglob("*.sh"), *(ROOT / "tests").rglob("*.rs")]
        return set().union(*(re.findall(r"EVERMESH_[A-Z_]+", file.read_text()) for file in files))

    def wrong(self, code: str) -> str | None:
        if PATH.match(code) and not (ROOT / code).exists():
            return "there is no such file"
        if code.startswith("./test"):
            unknown = [step for step in code.split()[1:] if step not in self.steps]
            return f"there is no step {unknown[0]}" if unknown else None
        if re.fullmatch(r"evermesh_\w+", code) and not {code, f"{code}_count"} & self.metrics:
            return "/metrics has no such metric"
        if re.fullmatch(r"EVERMESH_\w+", code) and code not in self.variables:
            return "nothing reads this variable"
        if code.startswith("evermesh "):
            return next(iter(self.unknown_flags(code)), None)
        return None

    def wrong_flags(self, block) -> list[str]:
        """Commands that are not run have at least the flags and variables that there are."""
        if block.language == "console":
            return []
        text = "\n".join(block.lines).replace("\\\n", " ")
        found = [f"nothing reads {name}" for name in re.findall(r"EVERMESH_[A-Z_]+", text) if name not in self.variables]
        for line in text.splitlines():
            if line.startswith("evermesh "):
                found += self.unknown_flags(line)
        return found

    def unknown_flags(self, command: str) -> list[str]:
        words = command.split()[1:]
        path = []
        for word in words:
            if not re.fullmatch(r"[a-z-]+", word) or word.startswith("-") or not self.is_command((*path, word)):
                break
            path.append(word)
        known = self.help(tuple(path))
        return [f"`evermesh {' '.join(path)}` has no {flag}" for flag in re.findall(r"(?<!\S)(--[\w-]+)", command) if flag not in known]

    def is_command(self, path: tuple[str, ...]) -> bool:
        listed = self.help(path[:-1]).partition("Commands:")[2].partition("\n\n")[0]
        return bool(re.search(rf"^  {re.escape(path[-1])}\s", listed, re.M))

    @cache
    def help(self, path: tuple[str, ...]) -> str:
        return subprocess.run([self.evermesh, *path, "--help"], capture_output=True, text=True, check=True).stdout

    def untold(self) -> list[str]:
        """What there is and no document explains."""
        problems = [f"docs/troubleshooting.md does not explain `{code}`" for code in sorted(self.problems) if f"| `{code}` |" not in self.told]
        flags = sorted(set(re.findall(r"^ +(--[\w-]+)", self.help(("serve",)), re.M)) - {"--config", "--help"})
        families = sorted({re.sub(r"_(bucket|sum|count)$", "", metric) for metric in self.metrics})
        problems += [f"docs/operating.md does not name `{family}`" for family in families if f"`{family}`" not in self.told]
        return problems + [f"docs/operating.md does not name `{flag}`" for flag in flags if f"| `{flag}` |" not in self.told]


def deployed(names: Names) -> list[str]:
    """The container file copies what is there, and sets what somebody reads."""
    text = (ROOT / "deploy/Containerfile").read_text()
    copied = " ".join(re.findall(r"^COPY (?!--)(.*) \S+$", text, re.M)).split()
    wrong = [f"deploy/Containerfile copies {path}, which is not there" for path in copied if not (ROOT / path).exists()]
    return wrong + [f"deploy/Containerfile: nothing reads {name}" for name in re.findall(r"EVERMESH_[A-Z_]+", text) if name not in names.variables]


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


if __name__ == "__main__":
    sys.exit(main())
