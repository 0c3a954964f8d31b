"""`make bench-peers`: PgQueuer, pgtask, Graphile Worker beside agentos, each as it comes and as fast as it can be set.

A peer that cannot be installed here is named with the reason, and the others are measured. Rounds are interleaved: in
each, every contender has its turn. Ratios are to agentos in the same round.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

from bench import report
from bench.bed import Bed, fresh_bed, spare_database
from bench.measure import Bar, Figure, Series, percentile
from bench.peers.contenders import Contender, Foreign, Ours
from bench.peers.install import PEERS, NotInstalled, Peer, install

STEPS = 20
Measure = Callable[[Contender, Bed], dict[str, float]]


def _drain(processes: int) -> Measure:
    return lambda each, bed: {"items/s": each.drain(processes, bed.size(each.items * processes))}


def _pickup(each: Contender, bed: Bed) -> dict[str, float]:
    taken = each.pickup(bed.size(200))
    return {"ms, p50": percentile(taken, 50), "ms, p99": percentile(taken, 99)}


def _submit(each: Contender, bed: Bed) -> dict[str, float]:
    seconds = 0.5 if bed.quick else 2.0
    return {
        "/s, 1 client": each.submit(1, seconds), "/s, 8 clients": each.submit(8, seconds),
        "/s, bulk": each.bulk(bed.size(20_000)),
    }  # fmt: skip


def _steps(each: Contender, bed: Bed) -> dict[str, float]:
    (alone,) = each.steps(1, STEPS)
    together = each.steps(8, bed.size(100))
    seconds = (max(times[-1] for times in together) - min(times[0] for times in together)) / 1e9
    return {
        "ms, alone": statistics.median((after - before) / 1e6 for before, after in pairwise(alone)),
        "steps/s, 8 tasks": sum(len(times) - 1 for times in together) / seconds,
    }  # fmt: skip


SUBJECTS: dict[str, Measure] = {
    "drain": _drain(1), "drain-2": _drain(2), "pickup": _pickup, "submit": _submit, "steps": _steps,
}  # fmt: skip


def main() -> None:
    """Measure what was asked for, or all."""
    asked = _options()
    with fresh_bed(quick=asked.quick) as bed:
        peers, missing = _installed([peer for peer in PEERS if not asked.peer or peer.folder in asked.peer])
        figures: list[Figure] = []
        for name in asked.only or SUBJECTS:
            figures += _subject(bed, name, peers, asked.rounds or bed.rounds, missing)
        about = {**bed.about(), **missing}
    report.show(figures, about)
    if asked.json:
        report.write(Path(asked.json), figures, about)


def _installed(peers: list[Peer]) -> tuple[list[Peer], dict[str, str]]:
    there, missing = [], {}
    for peer in peers:
        try:
            install(peer)
            there.append(peer)
        except NotInstalled as exc:
            missing[peer.name] = f"not measured: {exc}"
    return there, missing


def _subject(bed: Bed, name: str, peers: list[Peer], rounds: int, missing: dict[str, str]) -> Iterator[Figure]:
    with ExitStack() as stack:
        contenders: list[Contender] = [Ours(bed)]
        contenders += [
            Foreign(peer, configuration, stack.enter_context(spare_database(bed)))
            for peer in peers if name != "steps" or peer.steps for configuration in ("fast", "default")
        ]  # fmt: skip
        found: dict[tuple[str, str], list[float]] = {}
        for turn in range(rounds):
            for each in list(contenders):
                print(f"{name} {turn + 1}/{rounds}: {each.name}", file=sys.stderr, flush=True)
                try:
                    for unit, value in SUBJECTS[name](each, bed).items():
                        found.setdefault((unit, each.name), []).append(value)
                except (RuntimeError, ValueError) as exc:  # a driver's complaint: the others go on
                    missing[f"{each.name}, {name}"] = f"not measured: {exc}"
                    contenders.remove(each)
                    found = {key: values for key, values in found.items() if key[1] != each.name}
    for unit in dict.fromkeys(unit for unit, _ in found):
        yield from compared(name, unit, {who: values for (u, who), values in found.items() if u == unit})


def compared(name: str, unit: str, taken: dict[str, list[float]]) -> Iterator[Figure]:
    """agentos first, held to the best of the others; then they, beside agentos."""
    series = {who: Series(f"peers: {name}", who, unit, tuple(values)) for who, values in taken.items()}
    ours, others = series.pop("agentos"), list(series.values())
    less = unit.startswith("ms")
    figure = ours.figure()
    if others:
        best = (min if less else max)(others, key=lambda each: statistics.median(each.turns))
        figure = Figure(
            figure.issue, figure.name, figure.value, unit, figure.low, figure.high, best.name,
            ours.figure(best).ratio, Bar("ratio", "≤" if less else "≥", 1.0),
        )  # fmt: skip
    yield figure
    for each in others:
        yield each.figure(ours)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.peers", description=__doc__)
    parser.add_argument("--only", action="append", choices=SUBJECTS, metavar="NAME", help=", ".join(SUBJECTS))
    folders = [peer.folder for peer in PEERS]
    parser.add_argument("--peer", action="append", choices=folders, metavar="NAME", help=", ".join(folders))
    parser.add_argument("--rounds", type=int, help="turns of each; default 5, quick 3")
    parser.add_argument("--quick", action="store_true", help="fewer turns and items: a look, not a measurement")
    parser.add_argument("--json", metavar="FILE", help="also write JSON to FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
