"""Keys and dependencies: every key once, every dependency there, and no way round in a circle."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentos.core.plan.document import Problems, did_you_mean, inside, shown

_MAX_SUGGESTIONS, _MAX_CANDIDATES = 50, 500  # comparing all with all takes 20 s for 9,000 items
_MAX_CYCLES = 20
_SHOWN_CYCLE = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """An item as a point of the graph: its place, its key ("" if it has none) and what it needs, each with its line."""

    path: str
    key: str
    line: int
    needs: list[tuple[str, int]]


def check_graph(entries: Sequence[Entry], problems: Problems) -> None:
    """Finds keys given twice, dependencies that are unknown, doubled or on the item itself, and cycles."""
    by_key: dict[str, Entry] = {}
    for entry in entries:
        if entry.key and entry.key in by_key:
            first = by_key[entry.key]
            message = f"{shown(entry.key)} is the key of {first.path} too, on line {first.line}"
            problems.add(entry.line, inside(entry.path, "key"), message)
        elif entry.key:
            by_key[entry.key] = entry
    edges = {entry.key: _needs(entry, by_key, problems) for entry in by_key.values()}
    for entry in entries:
        if by_key.get(entry.key) is not entry:
            _needs(entry, by_key, problems)
    _find_cycles(edges, by_key, problems)


def _needs(entry: Entry, by_key: dict[str, Entry], problems: Problems) -> list[str]:
    """The dependencies of `entry` that exist, on other items."""
    path = inside(entry.path, "depends_on")
    known: dict[str, None] = {}  # in order
    for name, line in entry.needs:
        if name in known:
            problems.add(line, path, f"{shown(name)} is there twice")
        elif name == entry.key:
            problems.add(line, path, f"{shown(name)} is the item itself")
        elif name in by_key:
            known[name] = None
        else:
            near = did_you_mean(name, list(by_key)[:_MAX_CANDIDATES]) if len(problems.found) < _MAX_SUGGESTIONS else ""
            problems.add(line, path, f"no item has the key {shown(name)}{near}")
    return list(known)


def _find_cycles(edges: dict[str, list[str]], by_key: dict[str, Entry], problems: Problems) -> None:
    """Names the cycles it meets, depth first; without recursion: a plan may be one chain of 10,000 items."""
    done: set[str] = set()
    found = 0
    for start, needs in edges.items():
        way = [start]
        place = {start: 0}
        todo = [(start, iter(needs))] if start not in done else []
        while todo and found < _MAX_CYCLES:
            key, following = todo[-1]
            name = next(following, None)
            if name is None:
                todo.pop()
                way.pop()
                del place[key]
                done.add(key)
            elif name in place:
                found += 1
                _report(way[place[name] :], by_key, problems)
            elif name not in done:
                place[name] = len(way)
                way.append(name)
                todo.append((name, iter(edges[name])))


def _report(cycle: list[str], by_key: dict[str, Entry], problems: Problems) -> None:
    first = by_key[cycle[0]]
    names = [shown(key) for key in [*cycle, cycle[0]]]
    if len(names) > _SHOWN_CYCLE:
        names[_SHOWN_CYCLE // 2 : -_SHOWN_CYCLE // 2] = ["…"]
    line = next(line for name, line in first.needs if name == cycle[1 % len(cycle)])
    problems.add(line, inside(first.path, "depends_on"), f"the items wait for each other: {' → '.join(names)}")
