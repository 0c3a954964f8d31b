"""The report is a page that a browser can read, whatever the distributions call themselves."""

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

from agentos.demo.effects import Effect
from agentos.demo.picture import spans, timeline
from agentos.demo.report import Report, html_page, markdown
from agentos.demo.stage import Kill, Notes

NASTY = '<script>alert("x")</script> | & \n line'
KILL = Kill("worker-1", 11, at=10.0, item="b", artifact="b.findings.json")


def audit(name: str, **more: Any) -> dict[str, Any]:
    known = {
        "name": name, "version": "1", "files": 3, "bytes": 9, "wrong": 0, "shown": [], "missing": [], "licence": "MIT",
        "summary": "fine", "attempt": 1,
    }  # fmt: skip
    return {**known, **more}


def effect(item: str, pid: int, at: float, *, repair: bool = False) -> Effect:
    return Effect(f"{item}{at}", "verify_files", item, f"verify {item}", 1, repair, pid, at - 0.5, at, {})


EFFECTS = (
    effect("a", 11, 2), effect("b", 11, 4), effect("c", 12, 3), effect("c", 12, 14), effect("b", 13, 16, repair=True),
)  # fmt: skip


def report(*audits: dict[str, Any]) -> Report:
    return Report("demo-1", audits, EFFECTS, Notes({11: "worker-1", 12: "worker-2"}, KILL))


class Balance(HTMLParser):
    """Every tag that opens closes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        if tag not in ("meta", "rect", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "rect", "line"):
            assert self.open.pop() == tag


def test_the_page_is_well_formed_and_what_others_wrote_stays_text() -> None:
    page = html_page(report(audit("a", summary=NASTY, licence=NASTY, wrong=1, shown=[NASTY], missing=[NASTY])))
    balance = Balance()
    balance.feed(page)
    assert (balance.open, balance.scripts) == ([], 0)


def test_the_pictures_are_well_formed_svg() -> None:
    pictures = re.findall(r"<svg.*?</svg>", html_page(report(audit("a"), audit("b", attempt=2))), re.DOTALL)
    assert len(pictures) == 2
    assert all(len(ElementTree.fromstring(each)) for each in pictures)  # noqa: S314  made by ourselves just now


def test_the_table_of_the_text_has_a_row_for_each_whatever_stands_in_it() -> None:
    text = markdown(report(audit("a", summary=NASTY), audit("b")))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 4
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}


def test_a_span_that_the_kill_cut_off_ends_with_it_and_the_item_goes_on_elsewhere() -> None:
    drawn = {(span.item, span.pid): span for span in spans(EFFECTS, KILL)}
    assert (drawn["b", 11].cut, drawn["b", 11].ended) == (True, 10.0)
    assert (drawn["b", 13].again, drawn["b", 13].cut) == (True, False)
    assert not drawn["a", 11].cut
    assert not drawn["c", 12].cut


def test_without_a_kill_and_without_effects_there_is_still_a_page() -> None:
    page = html_page(Report("demo-1", (), (), Notes()))
    assert "No worker was killed." in page
    assert timeline((), Notes()) in page
