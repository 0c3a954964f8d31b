"""The quick reference as data: its code blocks with the headings they stand under, and its expected outputs."""

import re
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "quick-reference.md"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `number` counts the blocks of its language, from 1; `line` is the document's."""

    language: str
    number: int
    line: int
    heading: str
    text: str

    @property
    def name(self) -> str:
        """For test ids."""
        return f"{self.number}-{re.sub(r'[^a-z0-9]+', '-', self.heading.lower()).strip('-')}"


def blocks(language: str) -> list[Block]:
    """The blocks of one language (empty: without one), in order."""
    found: list[Block] = []
    heading, opened = "", None
    lines: list[str] = []
    for number, line in enumerate(DOCUMENT.read_text(encoding="utf-8").splitlines(), start=1):
        if opened is None and line.startswith("#"):
            heading = line.lstrip("# ")
        elif opened is None and line.startswith("```"):
            opened, lines = (line[3:].strip(), number), []
        elif opened is not None and line.startswith("```"):
            if opened[0] == language:
                found.append(Block(language, len(found) + 1, opened[1], heading, "\n".join(lines) + "\n"))
            opened = None
        elif opened is not None:
            lines.append(line)
    return found


def expected_output(script: str) -> str:
    """What the document says `python3 SCRIPT` prints."""
    after = next(block.line for block in blocks("bash") if script in block.text)
    return next(block.text for block in blocks("") if block.line > after)
