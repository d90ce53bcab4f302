"""Line charts as SVG that take their colours from the page's style sheet, so that they follow light and dark."""

import dataclasses
import html
import math

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 860, 64, 14, 10, 34


@dataclasses.dataclass(frozen=True)
class Line:
    name: str
    style: str  # class of the style sheet
    points: list  # (x, y), y may be None: the line has a gap there
    dots: bool = False  # each point can be pointed at
    stairs: bool = False  # the value holds until the next point


def ticks(low, high, wanted):
    """Round numbers that cover [low, high], about `wanted` of them."""
    span = high - low
    if span <= 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / max(1, wanted)))
    step = next(step * m for m in (1, 2, 2.5, 5, 10) if span / (step * m) <= wanted)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _label(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def thinned(points, most=600):
    """At most about `most` points: of each stretch the lowest and the highest, so that no spike is lost."""
    if len(points) <= most:
        return points
    out = []
    pieces = most // 2
    for piece in range(pieces):
        part = points[piece * len(points) // pieces : (piece + 1) * len(points) // pieces]
        known = [index for index, (_, y) in enumerate(part) if y is not None]
        if not known:
            out.append(part[0])
            continue
        ends = {min(known, key=lambda i: part[i][1]), max(known, key=lambda i: part[i][1])}
        if piece == 0:
            ends.add(0)
        if piece == pieces - 1:
            ends.add(len(part) - 1)
        out += [part[index] for index in sorted(ends)]
    return out


class Chart:
    def __init__(self, lines, height, across, x_label="", y_label="", zero=False):
        """`across` is the range of x; that of y is what the lines need, from 0 up where `zero`."""
        self._lines, self._height = lines, height
        self._x_label, self._y_label = x_label, y_label
        ys = [y for line in lines for _, y in line.points if y is not None] or [0]
        self._x = (across[0], max(across[1], across[0] + 1))
        low, high = (min(0, *ys) if zero else min(ys)), max(ys)
        room = (high - low) * 0.05 or abs(high) * 0.05 or 1
        self._y = (low if zero else low - room, high + room)

    def _at(self, x, y):
        across = (x - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(self._height - BOTTOM - up * (self._height - TOP - BOTTOM), 1),
        )

    def _path(self, line):
        pieces, pen_down, previous = [], False, None
        for x, y in thinned(line.points):
            if y is None:
                pen_down = False
                continue
            px, py = self._at(x, y)
            if pen_down and line.stairs:
                pieces.append(f"H{px}V{py}" if previous != py else f"H{px}")
            else:
                pieces.append(f"{'L' if pen_down else 'M'}{px} {py}")
            pen_down, previous = True, py
        return "".join(pieces)

    def _axes(self):
        bottom = self._height - BOTTOM
        for y in ticks(*self._y, max(2, self._height // 50)):
            _, py = self._at(self._x[0], y)
            yield f'<path class="grid" d="M{LEFT} {py}H{WIDTH - RIGHT}"/>'
            yield f'<text x="{LEFT - 8}" y="{py + 4}" text-anchor="end">{_label(y)}</text>'
        for x in ticks(*self._x, 8):
            px, _ = self._at(x, self._y[0])
            yield f'<text x="{px}" y="{bottom + 16}" text-anchor="middle">{_label(x)}</text>'
        yield f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>'
        if self._x_label:
            yield (
                f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{self._height - 3}" text-anchor="middle">'
                f"{html.escape(self._x_label)}</text>"
            )

    def svg(self):
        parts = [
            f'<svg viewBox="0 0 {WIDTH} {self._height}" role="img" aria-label="{html.escape(self._y_label)}">',
            *self._axes(),
        ]
        for line in self._lines:
            parts.append(f'<path class="line {line.style}" d="{self._path(line)}"/>')
            if line.dots:
                for x, y in line.points:
                    px, py = self._at(x, y)
                    title = html.escape(f"{line.name}, update {x:,}: {y:.4f}")
                    parts.append(
                        f'<circle class="{line.style}" cx="{px}" cy="{py}" r="4"><title>{title}</title></circle>'
                    )
        parts.append("</svg>")
        keys = "".join(
            f'<span><i class="{line.style}"></i>{html.escape(line.name)}</span>' for line in self._lines
        )
        return f'<figure><figcaption>{html.escape(self._y_label)}<span class="keys">{keys}</span></figcaption>{"".join(parts)}</figure>'
