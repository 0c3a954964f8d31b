"""`make bench`: prints every figure beside the baselines of the same run, and whether its bar holds.

A bar that is missed is said, not failed: the exit code is 0 when the benchmarks ran, whatever
they found, and 1 when one of them broke; what the others found is shown either way.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import (
    checkpoints,
    claimers,
    drain,
    footprint,
    pickup,
    plot,
    recovery,
    report,
    settling,
    steps,
    submit,
    tenants,
)
from bench.bed import Bed, fresh_bed
from bench.measure import Figure

SUBJECTS: dict[str, Callable[[Bed], Iterator[Figure]]] = {
    "submit": submit.run, "pickup": pickup.run, "drain": drain.run, "steps": steps.run, "checkpoints": checkpoints.run,
    "settling": settling.run, "claimers": claimers.run, "footprint": footprint.run, "recovery": recovery.run,
    "tenants": tenants.run,
}  # fmt: skip


def main() -> None:
    """Run the subjects asked for, or all."""
    asked = _options()
    figures: list[Figure] = []
    failed: list[str] = []
    with fresh_bed(quick=asked.quick) as bed:
        about = bed.about()
        for name in asked.only or SUBJECTS:
            began = time.monotonic()
            try:
                figures += SUBJECTS[name](bed)
            except Exception:
                failed.append(name)
                traceback.print_exc()
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if asked.json == "-":
        print(report.as_json(figures, about))
    else:
        report.show(figures, about)
        if asked.json:
            report.write(Path(asked.json), figures, about)
    if asked.plots:
        plot.write(bed.plots, Path(asked.plots))
    if failed:
        sys.exit(f"did not run to their end: {', '.join(failed)}; what the others found is above")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=SUBJECTS, metavar="NAME", help=", ".join(SUBJECTS))
    parser.add_argument("--quick", action="store_true", help="fewer turns and items: a look, not a measurement")
    parser.add_argument("--json", metavar="FILE", help="also write JSON to FILE; - prints it instead of the table")
    parser.add_argument("--plots", metavar="FOLDER", help="also draw SVG files there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
