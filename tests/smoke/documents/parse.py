"""The documents as what can be tested: blocks of commands with what they print, headings, links. Used by `run.py` and `check.py`."""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FENCE = re.compile(r"^( *)(`{3,})(\w*)\s*$")
PROMPT = re.compile(r"^(n\d)?\$ (.*)$")


@dataclass
class Command:
    """One command of a `console` block: on which host (none: this machine), its text on one line, the lines that the document shows of its output."""

    document: Path
    line: int
    host: str | None
    text: str
    shown: list[str] = field(default_factory=list)


@dataclass
class Block:
    language: str
    line: int
    lines: list[str]


def documents() -> list[Path]:
    """What readers follow step by step: the README, then docs/ as the README orders them, then what it does not name."""
    readme = ROOT / "README.md"
    named = [ROOT / path for path in re.findall(r"\]\((docs/[\w-]+\.md)", readme.read_text())]
    rest = sorted((ROOT / "docs").glob("*.md"))
    return list(dict.fromkeys([readme, *(path for path in named if path in rest), *rest]))


def blocks(text: str) -> tuple[list[Block], str]:
    """The fenced blocks, and the text without them (with as many lines)."""
    found, rest, block, fence = [], [], None, ""
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line)
        if block is None and match:
            block, fence = Block(match[3], number, []), match[2]
        elif block is not None and line.strip() == fence:
            found.append(block)
            block = None
        elif block is not None:
            block.lines.append(line)
        else:
            rest.append(line)
            continue
        rest.append("")
    if block is not None:
        raise ValueError(f"the block that begins in line {block.line} has no end")
    return found, "\n".join(rest)


def commands(document: Path, block: Block) -> list[Command]:
    found: list[Command] = []
    continued = False
    for offset, line in enumerate(block.lines, 1):
        prompt = PROMPT.match(line)
        if continued:
            text = line.strip()
            found[-1].text += text
        elif prompt:
            text = prompt[2]
            found.append(Command(document, block.line + offset, prompt[1], text))
        elif found:
            found[-1].shown.append(line)
            continue
        else:
            raise ValueError(f"{document.name}:{block.line + offset}: a console block begins with a prompt")
        continued = text.endswith("\\")
        if continued:
            found[-1].text = found[-1].text[:-1].rstrip() + " "
    return found
