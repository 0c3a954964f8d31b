"""`make bench`: prints every figure with its ratio and whether its bar holds; exit code 1 if one does not."""

import json
import sys

from rich.console import Console
from rich.table import Table

from bench import checkpoints, settling
from bench.measure import Figure


def main() -> None:
    """Run all benchmarks; `--json` for a machine."""
    figures = [*checkpoints.run(), *settling.run()]
    p50 = {figure.name: figure.p50_ms for figure in figures}
    if "--json" in sys.argv:
        print(json.dumps([{**_row(f, p50)} for f in figures], indent=2))
    else:
        _table(figures, p50)
    sys.exit(0 if all(figure.holds for figure in figures) else 1)


def _row(figure: Figure, p50: dict[str, float]) -> dict[str, object]:
    ratio = figure.p50_ms / p50[figure.baseline] if figure.baseline else None
    return {
        "name": figure.name, "p50_ms": round(figure.p50_ms, 3), "p99_ms": round(figure.p99_ms, 3),
        "ratio": ratio and round(ratio, 2), "bar_ms": figure.bar_ms, "holds": figure.holds,
    }  # fmt: skip


def _table(figures: list[Figure], p50: dict[str, float]) -> None:
    table = Table("operation", "p50 ms", "p99 ms", "x baseline", "bar", title="agentos bench")
    for figure in figures:
        row = _row(figure, p50)
        bar = "" if figure.bar_ms is None else f"{'holds' if figure.holds else 'MISSED'} (< {figure.bar_ms:g})"
        table.add_row(figure.name, f"{figure.p50_ms:.3f}", f"{figure.p99_ms:.3f}", str(row["ratio"] or ""), bar)
    Console().print(table)


if __name__ == "__main__":
    main()
