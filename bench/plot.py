"""Line charts as SVG text: small enough to read in a diff, and no library for them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 320, 70, 50, 40
COLOURS = ("#0b6", "#c33", "#36c", "#a6a", "#777")
Points = Sequence[tuple[float, float]]


def lines(title: str, across: str, up: str, series: Mapping[str, Points]) -> str:
    """The chart of some series of (x, y). Raises ValueError: if there is no point at all."""
    points = [point for each in series.values() for point in each]
    if not points:
        raise ValueError(f"nothing to draw: {title}")
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    top = max(y for _, y in points) or 1.0

    def at(x: float, y: float) -> str:
        along = (x - low) / ((high - low) or 1.0)
        return f"{LEFT + along * (WIDTH - LEFT - 20):.1f},{HEIGHT - BOTTOM - y / top * (HEIGHT - BOTTOM - TOP):.1f}"

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="15">{escape(title)}</text>',
    ]
    for part in (0.0, 0.5, 1.0):
        y = at(low, top * part).split(",")[1]
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y}" text-anchor="end">{top * part:,.4g}</text>')
        x = at(low + (high - low) * part, 0).split(",")[0]
        out.append(
            f'<text x="{x}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{low + (high - low) * part:,.4g}</text>'
        )
    out.append(
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(across)}; up: {escape(up)}</text>'
    )
    for n, (name, each) in enumerate(series.items()):
        path = " ".join(at(x, y) for x, y in each)
        out.append(f'<polyline fill="none" stroke="{COLOURS[n % 5]}" stroke-width="2" points="{path}"/>')
        out.append(f'<text x="{LEFT + 8 + n * 150}" y="{TOP - 4}" fill="{COLOURS[n % 5]}">{escape(name)}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def counted(values: Sequence[float], width: float, most: float) -> Points:
    """A histogram: how many of the values lie in each step of `width` up to `most`; larger ones count as that."""
    steps = Counter(int(min(value, most) / width) for value in values)
    return [((step + 0.5) * width, float(steps[step])) for step in range(int(most / width) + 1)]


def write(plots: Mapping[str, str], folder: Path) -> None:
    """A file for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in plots.items():
        (folder / f"{name}.svg").write_text(svg)
