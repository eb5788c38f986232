"""How a flow diagram is laid out: a grid of boxes, and arrows that find their way between them.

The lattice has a lane along every row and column and one in every gap between them. An arrow takes the cheapest
path over it (Dijkstra), where bends, long ways and lanes in use cost, and a box in the way cannot be passed. Only
then do the lanes get widths, from the boxes, the labels and the number of arrows side by side.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from .diagrams import Matrix, Sheet, _Measured, box
from .figures import SMALL_SIZE, TEXT_SIZE, font, text_size
from .palette import GRID, INK, MUTED, role
from .save import ARROW

BOLD, SMALL = font(TEXT_SIZE, "bold"), font(SMALL_SIZE)
PAD_X, PAD_Y = 9.0, 6.0
GAP_X, GAP_Y = 26.0, 20.0
TRACK = 9.0
FRAME = 9.0
TITLE = 17.0

Point = tuple[int, int]  # lattice: x = 2 * column + 1 and y = 2 * row + 1 are boxes, even numbers are gaps


@dataclass
class _Node:
    """A box, with its size in points."""

    text: str = ""
    detail: str = ""
    role: str = "ink"
    plain: bool = False
    matrix: _Measured | None = None
    at: Point = (0, 0)
    width: float = 0.0
    height: float = 0.0

    @classmethod
    def of(cls, given: Mapping[str, Any] | Matrix | str, cell: float) -> _Node:
        if isinstance(given, Matrix):
            measured = _Measured.of(given, cell)
            return cls(
                role=given.role,
                matrix=measured,
                plain=True,
                width=measured.width(cell) + 4,
                height=measured.height(cell) + 2,
            )
        node = cls(given) if isinstance(given, str) else cls(**given)
        width, height = text_size(node.text, BOLD)
        if node.detail:
            more = text_size(node.detail, SMALL)
            width, height = max(width, more[0]), height + more[1] + 1
        node.width, node.height = width + 2 * PAD_X, height + 2 * PAD_Y
        return node


@dataclass
class _Arrow:
    """An edge and its way over the lattice, as corners."""

    source: str
    target: str
    label: str
    way: list[Point] = field(default_factory=list)


def draw_flow(
    nodes: Mapping[str, Mapping[str, Any] | Matrix | str],
    edges: Sequence[tuple[str, ...]],
    grid: Sequence[Sequence[str]],
    groups: Mapping[str, Sequence[str]],
    cell: float,
) -> Callable[[Sheet], None]:
    """Check a flow and route its arrows; what comes back draws it on a sheet."""
    boxes = {key: _Node.of(given, cell) for key, given in nodes.items()}
    placed: set[str] = set()
    for r, row in enumerate(grid):
        for c, key in enumerate(row):
            if key in {".", ""}:
                continue
            if key not in boxes:
                raise ValueError(f"grid: {key!r} is no node; the nodes are {', '.join(map(repr, boxes))}")
            if key in placed:
                raise ValueError(f"grid: {key!r} stands in it twice")
            placed.add(key)
            boxes[key].at = (2 * c + 1, 2 * r + 1)
    missing = sorted(set(boxes) - placed)
    if missing:
        raise ValueError(f"grid: lacks the nodes {', '.join(map(repr, missing))}")
    arrows = []
    for edge in edges:
        source, target = edge[0], edge[1]
        for end in (source, target):
            if end not in boxes:
                raise ValueError(f"edges: {end!r} is no node; the nodes are {', '.join(map(repr, boxes))}")
        if source == target:
            raise ValueError(f"edges: {source!r} leads to itself")
        arrows.append(_Arrow(source, target, edge[2] if len(edge) > 2 else ""))
    for title, members in groups.items():
        for key in members:
            if key not in boxes:
                raise ValueError(f"groups: {key!r} in {title!r} is no node")
    shape = 2 * max(len(row) for row in grid), 2 * len(grid)
    _route(arrows, boxes, shape)
    return lambda sheet: _Layout(boxes, arrows, groups, shape, cell).draw(sheet)


# ---------------------------------------------------------------------------------------------------------------------
# Ways


def _route(arrows: list[_Arrow], boxes: Mapping[str, _Node], shape: Point) -> None:
    """Give each arrow its way; short ones first, since they have the least choice."""
    taken = {node.at for node in boxes.values()}
    used: dict[tuple[Point, Point], list[_Arrow]] = defaultdict(list)

    def span(arrow: _Arrow) -> int:
        a, b = boxes[arrow.source].at, boxes[arrow.target].at
        return abs(a[0] - b[0]) + abs(a[1] - b[1])

    for arrow in sorted(arrows, key=span):
        start, goal = boxes[arrow.source].at, boxes[arrow.target].at
        points = _cheapest(arrow, start, goal, taken, used, shape)
        for a, b in pairwise(points):
            used[a, b].append(arrow)
        arrow.way = [
            p
            for i, p in enumerate(points)
            if i in {0, len(points) - 1} or not _straight(points[i - 1], p, points[i + 1])
        ]


def _straight(a: Point, b: Point, c: Point) -> bool:
    return (a[0] == b[0] == c[0]) or (a[1] == b[1] == c[1])


def _cheapest(
    arrow: _Arrow,
    start: Point,
    goal: Point,
    taken: set[Point],
    used: Mapping[tuple[Point, Point], list[_Arrow]],
    shape: Point,
) -> list[Point]:
    directions = ((1, 0), (0, 1), (-1, 0), (0, -1))
    best: dict[tuple[Point, int], float] = {}
    queue: list[tuple[float, int, Point, int, tuple[Point, ...]]] = [(0.0, 0, start, -1, (start,))]
    count = 0
    while queue:
        cost, _, here, heading, way = heapq.heappop(queue)
        if here == goal:
            return list(way)
        if best.get((here, heading), np.inf) < cost:
            continue
        for turn, (dx, dy) in enumerate(directions):
            there = here[0] + dx, here[1] + dy
            if not (0 <= there[0] <= shape[0] and 0 <= there[1] <= shape[1]):
                continue
            if there in taken and there != goal:
                continue
            if heading >= 0 and (turn - heading) % 4 == 2:
                continue
            price = cost + 1.0
            if heading >= 0 and turn != heading:
                price += 1.5
            if there[0] in {0, shape[0]} or there[1] in {0, shape[1]}:
                price += 1.0  # around the outside only where there is no other way
            price += sum(_sharing(arrow, other) for other in used.get((here, there), ()))
            price += sum(4.0 for _ in used.get((there, here), ()))
            key = (there, turn)
            if price < best.get(key, np.inf) - 1e-9:
                best[key] = price
                count += 1
                heapq.heappush(queue, (price, count, there, turn, (*way, there)))
    raise ValueError(f"edges: no way from {arrow.source!r} to {arrow.target!r}; leave room in the grid")


def _sharing(arrow: _Arrow, other: _Arrow) -> float:
    """What it costs to run along another arrow: nothing from the same box, where the two are one line."""
    if arrow.source == other.source:
        return 0.8 if arrow.label or other.label else -0.2  # a label must say which of two it is for
    return 0.6 if arrow.target == other.target else 2.0


# ---------------------------------------------------------------------------------------------------------------------
# Places


class _Layout:
    """Widths for the lanes, then coordinates for everything."""

    def __init__(
        self,
        boxes: Mapping[str, _Node],
        arrows: list[_Arrow],
        groups: Mapping[str, Sequence[str]],
        shape: Point,
        cell: float,
    ) -> None:
        self.boxes, self.arrows, self.groups, self.shape, self.cell = boxes, arrows, groups, shape, cell
        self.track: dict[tuple[int, int], float] = {}  # (arrow, run) -> shift within its lane
        self.lanes: dict[tuple[int, int], int] = defaultdict(int)  # (axis, lane) -> arrows side by side
        self._share_lanes()
        self.sizes = [self._lane_sizes(0), self._lane_sizes(1)]

    def runs(self, arrow: _Arrow) -> list[tuple[int, int, int, int]]:
        """The straight parts: (axis across which the lane is counted, lane, from, to)."""
        parts = []
        for a, b in zip(arrow.way, arrow.way[1:], strict=False):
            axis = 0 if a[0] == b[0] else 1  # a vertical run keeps x, so its lane counts along x
            parts.append((axis, a[axis], a[1 - axis], b[1 - axis]))
        return parts

    def _share_lanes(self) -> None:
        in_lane: dict[tuple[int, int], list[tuple[int, int, int, int]]] = defaultdict(list)
        for number, arrow in enumerate(self.arrows):
            for run, (axis, lane, start, end) in enumerate(self.runs(arrow)):
                if lane % 2 == 0:
                    in_lane[axis, lane].append((min(start, end), max(start, end), number, run))
        for key, runs in in_lane.items():
            tracks: list[list[tuple[int, int, int, int]]] = []
            for item in sorted(runs):
                source = self.arrows[item[2]].source
                for track in tracks:
                    clash = any(
                        item[0] <= other[1] and other[0] <= item[1] and self.arrows[other[2]].source != source
                        for other in track
                    )
                    if not clash:
                        track.append(item)
                        break
                else:
                    tracks.append([item])
            self.lanes[key] = len(tracks)
            for index, track in enumerate(tracks):
                for _, _, number, run in track:
                    self.track[number, run] = (index - (len(tracks) - 1) / 2) * TRACK

    def _lane_sizes(self, axis: int) -> np.ndarray:
        """The extent of every lane along an axis, in points."""
        sizes = np.zeros(self.shape[axis] + 1)
        for node in self.boxes.values():
            lane = node.at[axis]
            sizes[lane] = max(sizes[lane], node.width if axis == 0 else node.height)
        for lane in range(0, self.shape[axis] + 1, 2):
            outside = lane in {0, self.shape[axis]}
            count = self.lanes.get((axis, lane), 0)
            base = (22.0 * min(count, 1)) if outside else (GAP_X if axis == 0 else GAP_Y)
            sizes[lane] = base + TRACK * max(0, count - 1)
        for arrow in self.arrows:
            if not arrow.label:
                continue
            run = self._labelled_run(arrow)
            along, lane, start, end = self.runs(arrow)[run]
            if along == 1 and axis == 0:  # a horizontal run needs room for its label
                gaps = [g for g in range(min(start, end), max(start, end) + 1) if g % 2 == 0]
                room = text_size(arrow.label, SMALL)[0] + 18
                covered = sum(sizes[g] for g in gaps)
                if gaps and covered < room:
                    sizes[gaps[len(gaps) // 2]] += room - covered
            elif along == 0 and axis == 0 and lane % 2:  # beside a vertical run between two boxes
                beyond = text_size(arrow.label, SMALL)[0] + 12 - sizes[lane] / 2
                for beside in (lane - 1, lane + 1):
                    sizes[beside] = max(sizes[beside], 2 * beyond + TRACK * self.lanes.get((0, beside), 0))
            elif along == 0 and axis == 0 and lane % 2 == 0:  # beside a vertical run in a gap
                sizes[lane] = max(sizes[lane], 2 * (text_size(arrow.label, SMALL)[0] + 8))
            elif along == 0 and axis == 1:
                gaps = [g for g in range(min(start, end), max(start, end) + 1) if g % 2 == 0]
                if gaps and sum(sizes[g] for g in gaps) < 2 * SMALL_SIZE + 14:
                    sizes[gaps[0]] += 8
        for name, members in self.groups.items():
            lanes = [self.boxes[key].at[axis] for key in members]
            spare = self._frame_spare(members, name) if axis == 0 else 0.0
            sizes[min(lanes) - 1] += FRAME + spare + (TITLE if axis == 1 else 0)
            sizes[max(lanes) + 1] += FRAME + spare
        return sizes

    def _frame_spare(self, members: Sequence[str], title: str) -> float:
        """What a frame is wider by, so that its title ends before the arrows into its first column."""
        first = min(self.boxes[key].at[0] for key in members)
        half = max(self.boxes[key].width for key in members if self.boxes[key].at[0] == first) / 2
        return max(0.0, text_size(title, SMALL)[0] + 16 - half - FRAME)

    def _labelled_run(self, arrow: _Arrow) -> int:
        """The run that carries the label: the longest, a horizontal one for preference."""
        runs = self.runs(arrow)
        return max(range(len(runs)), key=lambda i: (runs[i][0] == 1, abs(runs[i][3] - runs[i][2]), -i))

    def draw(self, sheet: Sheet) -> None:
        """Draw boxes, frames, arrows and labels."""
        sheet.demand(float(self.sizes[0].sum()), float(self.sizes[1].sum()))
        places = [self._places(0, sheet.width, 46.0), self._places(1, sheet.height, 30.0)]
        middles = [p[:-1] + np.diff(p) / 2 for p in places]
        self._draw_groups(sheet, places, middles)
        for node in self.boxes.values():
            self._draw_node(sheet, node, float(middles[0][node.at[0]]), float(middles[1][node.at[1]]))
        ports = self._ports()
        ways = [self._corners(number, arrow, middles, ports) for number, arrow in enumerate(self.arrows)]
        for arrow, way in zip(self.arrows, ways, strict=True):
            self._draw_arrow(sheet, arrow, way)
        obstacles = [self._rectangle(node, middles) for node in self.boxes.values()]
        for number, arrow in enumerate(self.arrows):
            if arrow.label:
                obstacles.append(self._draw_label(sheet, number, ways, obstacles))

    def _places(self, axis: int, available: float, most: float) -> np.ndarray:
        """Where the lanes begin and end: inner gaps share what is left, up to ``most`` each."""
        sizes = self.sizes[axis].copy()
        inner = range(2, self.shape[axis], 2)
        if len(inner):
            sizes[inner] += min(most, max(0.0, available - sizes.sum()) / len(inner))
        return (available - sizes.sum()) / 2 + np.concatenate([[0.0], np.cumsum(sizes)])

    def _draw_groups(self, sheet: Sheet, places: list[np.ndarray], middles: list[np.ndarray]) -> None:
        for title, members in self.groups.items():
            nodes = [self.boxes[key] for key in members]
            spare = self._frame_spare(members, title)
            left = min(middles[0][n.at[0]] - n.width / 2 for n in nodes) - FRAME - spare
            right = max(middles[0][n.at[0]] + n.width / 2 for n in nodes) + FRAME + spare
            top = min(middles[1][n.at[1]] - n.height / 2 for n in nodes) - FRAME - TITLE
            bottom = max(middles[1][n.at[1]] + n.height / 2 for n in nodes) + FRAME
            sheet.ax.add_patch(
                FancyBboxPatch(
                    (left + 6, top + 6),
                    right - left - 12,
                    bottom - top - 12,
                    boxstyle="round,pad=6,rounding_size=8",
                    facecolor=GRID,
                    alpha=0.45,
                    linewidth=0,
                    zorder=0,
                )
            )
            sheet.text(left + 8, top + 11, title, SMALL, MUTED, ha="left")

    def _draw_node(self, sheet: Sheet, node: _Node, x: float, y: float) -> None:
        ink = role(node.role)
        if node.matrix is not None:
            node.matrix.draw(sheet, x - node.width / 2 + 2, y - node.height / 2 + 1, self.cell)
            return
        if not node.plain:
            box(sheet, x - node.width / 2, y - node.height / 2, node.width, node.height, ink)
        if node.detail:
            name, detail = text_size(node.text, BOLD)[1], text_size(node.detail, SMALL)[1]
            top = y - (name + detail + 1) / 2
            sheet.text(x, top + name / 2, node.text, BOLD, ink)
            sheet.text(x, top + name + 1 + detail / 2, node.detail, SMALL, MUTED)
        else:
            sheet.text(x, y, node.text, BOLD, ink)

    def _ports(self) -> dict[tuple[int, str], float]:
        """Shifts at the ends of arrows, so that those from different boxes do not arrive in one point."""
        sides: dict[tuple[str, int, int], dict[Any, list[tuple[int, str, float]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for number, arrow in enumerate(self.arrows):
            for end, key in (("out", arrow.source), ("in", arrow.target)):
                way = arrow.way if end == "out" else arrow.way[::-1]
                axis = 0 if way[0][0] == way[1][0] else 1
                side = np.sign(way[1][1 - axis] - way[0][1 - axis])
                # where the arrow comes from, across the side: its next corner but one, or straight ahead
                beyond = way[2][axis] if len(way) > 2 else way[1][axis]
                who = ("out",) if end == "out" else ("in", arrow.source)
                sides[key, axis, int(side)][who].append((number, end, float(beyond)))
        shifts: dict[tuple[int, str], float] = {}
        for (key, axis, _), users in sides.items():
            node = self.boxes[key]
            room = (node.width if axis == 0 else node.height) - 10
            step = min(13.0, room / max(1, len(users) - 1)) if len(users) > 1 else 0.0
            order = sorted(users.values(), key=lambda items: float(np.mean([i[2] for i in items])))
            for index, items in enumerate(order):
                for number, end, _ in items:
                    shifts[number, end] = (index - (len(order) - 1) / 2) * step
        return shifts

    def _corners(
        self, number: int, arrow: _Arrow, middles: list[np.ndarray], ports: Mapping[tuple[int, str], float]
    ) -> list[tuple[float, float]]:
        """Where an arrow begins, turns and ends, in points."""
        runs = self.runs(arrow)
        across = []
        for i, (axis, lane, _, _) in enumerate(runs):
            shift = self.track.get((number, i), 0.0)
            if i == 0:
                shift += ports[number, "out"]
            if i == len(runs) - 1 and (len(runs) > 1 or ports[number, "in"]):
                shift = ports[number, "in"] if lane % 2 else shift
            across.append(float(middles[axis][lane]) + shift)
        corners = [self._edge_of(self.boxes[arrow.source], runs[0], across[0], middles, leaving=True)]
        for i in range(len(runs) - 1):
            corner = [0.0, 0.0]
            corner[runs[i][0]], corner[runs[i + 1][0]] = across[i], across[i + 1]
            corners.append((corner[0], corner[1]))
        return [*corners, self._edge_of(self.boxes[arrow.target], runs[-1], across[-1], middles, leaving=False)]

    def _draw_arrow(self, sheet: Sheet, arrow: _Arrow, way: list[tuple[float, float]]) -> None:
        ink = role(self.boxes[arrow.source].role)
        sheet.ax.add_patch(
            FancyArrowPatch(
                path=_rounded(way),
                arrowstyle="-|>,head_length=5,head_width=2.6",
                mutation_scale=1.0,
                color=MUTED if ink == INK else ink,
                linewidth=1.3,
                zorder=2,
                gid=ARROW,
                joinstyle="miter",
                capstyle="butt",
            )
        )

    def _draw_label(
        self, sheet: Sheet, number: int, ways: list[list[tuple[float, float]]], obstacles: list[_Rectangle]
    ) -> _Rectangle:
        """Write a label beside its arrow, where it touches nothing: by the middle of a long run for preference."""
        arrow, way = self.arrows[number], ways[number]
        width, height = text_size(arrow.label, SMALL)
        best: tuple[float, float, float] = (np.inf, 0.0, 0.0)
        for i, ((x0, y0), (x1, y1)) in enumerate(pairwise(way)):
            flat = abs(y1 - y0) < 1e-9
            length = abs(x1 - x0) + abs(y1 - y0)
            head = 6.0 if i == len(way) - 2 else 0.0  # the arrow's head takes room
            for part in (0.5, 0.35, 0.65, 0.2, 0.8):
                along = part * (length - head) / length
                x, y = x0 + along * (x1 - x0), y0 + along * (y1 - y0)
                for side in (-1, 1):
                    at = (x, y + side * (0.55 * height + 2)) if flat else (x - side * (width / 2 + 5), y)
                    rectangle = (at[0] - width / 2, at[1] - height / 2, at[0] + width / 2, at[1] + height / 2)
                    cost = 100.0 * sum(_meet(rectangle, other) for other in obstacles)
                    cost += 60.0 * sum(_crossed(rectangle, other) for other in ways)
                    cost += 200.0 * (rectangle[0] < 0 or rectangle[2] > sheet.width)
                    cost += 10 * abs(part - 0.5) + 3 * (side > 0) + (0 if flat else 6) - 0.02 * length
                    cost += 8.0 * max(0.0, (width - length) / width) if flat else 0.0
                    if cost < best[0] - 1e-9:
                        best = (cost, *at)
        _, x, y = best
        sheet.text(x, y, arrow.label, SMALL)
        return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    def _rectangle(self, node: _Node, middles: list[np.ndarray]) -> _Rectangle:
        x, y = float(middles[0][node.at[0]]), float(middles[1][node.at[1]])
        return (x - node.width / 2, y - node.height / 2, x + node.width / 2, y + node.height / 2)

    def _edge_of(
        self,
        node: _Node,
        run: tuple[int, int, int, int],
        across: float,
        middles: list[np.ndarray],
        leaving: bool,
    ) -> tuple[float, float]:
        """Where an arrow touches a box."""
        axis, _, start, end = run
        direction = np.sign(end - start) * (1 if leaving else -1)
        along = 1 - axis
        half = (node.width if along == 0 else node.height) / 2 + (1.5 if leaving else 2.5)
        at = float(middles[along][node.at[along]]) + direction * half
        return (at, across) if along == 0 else (across, at)


_Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


def _meet(one: _Rectangle, other: _Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _crossed(rectangle: _Rectangle, way: Sequence[tuple[float, float]]) -> bool:
    """Whether an arrow, whose parts are level or upright, runs through a rectangle."""
    return any(
        _meet(rectangle, (min(x0, x1) - 1, min(y0, y1) - 1, max(x0, x1) + 1, max(y0, y1) + 1))
        for (x0, y0), (x1, y1) in pairwise(way)
    )


def _rounded(points: Sequence[tuple[float, float]], radius: float = 5.0) -> Path:
    """A path through points with round corners."""
    vertices: list[Any] = [points[0]]
    codes: list[Any] = [Path.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        a, b, c = np.array(before), np.array(corner), np.array(after)
        lengths = float(np.linalg.norm(a - b)), float(np.linalg.norm(c - b))
        r = min(radius, lengths[0] / 2, lengths[1] / 2)
        if r < 0.1:
            continue
        vertices += [tuple(b + (a - b) * r / lengths[0]), corner, tuple(b + (c - b) * r / lengths[1])]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path([*vertices, points[-1]], [*codes, Path.LINETO])
