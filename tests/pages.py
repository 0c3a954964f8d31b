"""The pages that users read, as data: their fenced blocks, and the commands that they name."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHELL = ("", "sh", "bash", "console")

_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_COMMAND = re.compile(r"(?<![\w/.-])(agentos(?:-worker|-coordinator)?) (?=\S)(.*?)(?=\s*#|\s{2,}|\s&|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, and the line of the page where its text begins (from 0)."""

    language: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A command line as a page shows it: `agentos`, `submit research --wait`."""

    program: str
    arguments: str

    @property
    def command(self) -> str:
        """Its first word, if that is not an option."""
        return "" if self.arguments.startswith("-") else re.split(r"[^\w-]", self.arguments, maxsplit=1)[0]

    @property
    def options(self) -> set[str]:
        """Every long option that is written out (`--add-…` is not)."""
        bare = re.sub(r"'[^']*'", "", self.arguments)
        return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w…-])", bare))


def pages() -> list[Path]:
    """The README, the pages under docs/, and the READMEs of the packages."""
    return [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted(ROOT.glob("shared/agentos/**/README.md")),
    ]


def blocks(page: Path, *languages: str) -> list[Block]:
    """The page's blocks of these languages, in order."""
    found, opened, lines = [], None, list[str]()
    for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
        if line.startswith("```") and opened is None:
            opened, lines = (line[3:].strip(), number), []
        elif line.startswith("```") and opened is not None:
            found.append(Block(*opened, "\n".join(lines) + "\n"))
            opened = None
        elif opened is not None:
            lines.append(line)
    return [block for block in found if block.language in languages]


def commands(page: Path) -> list[Shown]:
    """Every command line of agentos in its shell blocks, in comments of its programs and in its running text."""
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    texts = [block.text for block in blocks(page, *SHELL)]
    texts += [line.partition("#")[2] for block in blocks(page, "python") for line in block.text.splitlines()]
    texts += [" ".join(inline.split()) for inline in _INLINE.findall(prose)]
    return [Shown(program, rest) for text in texts for program, rest in _COMMAND.findall(text)]
