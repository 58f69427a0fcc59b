"""Drawn product pictures: a small catalogue whose right answers a person can see and count.

It has six categories of eight families. Families differ in shape, colour and pattern. Pictures of one
family differ as photos of similar products do: in position, size, proportions, tilt, light, backdrop,
dye and the start of the pattern. A neighbour of the same family is a right answer.
"""

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = 360
DRAWN = 2 * SIZE  # drawn at twice the size: ImageDraw has no antialiasing of its own
FIRST_PRODUCT_ID = 1001
SUFFIXES = {3: ".png", 7: ".webp"}  # by number among ten of a family; the rest are JPEG

Array = NDArray[Any]
Colour = tuple[int, ...]  # red, green, blue
Paint = Image.Image | Colour
Points = Sequence[Any] | Array  # (x, y) each
Point = tuple[float, float]
Surface = Callable[[Array, Array], tuple[Array, Array]]

# fmt: off
COLOURS: Mapping[str, Colour] = {
    "white": (246, 244, 239), "cream": (240, 226, 196), "grey": (142, 146, 152),
    "black": (44, 44, 50), "ink": (52, 48, 47), "brass": (196, 178, 138), "brown": (128, 82, 52),
    "red": (202, 48, 48), "coral": (240, 122, 98), "orange": (236, 134, 40),
    "yellow": (246, 200, 62), "pink": (242, 160, 184), "purple": (122, 78, 158),
    "green": (58, 134, 82), "mint": (150, 214, 184), "teal": (28, 126, 138),
    "sky": (126, 186, 230), "blue": (46, 92, 178), "navy": (34, 46, 88),
}
# fmt: on


# Patterns: the share of the second colour at (u, v), 0 to 1. They repeat at whole numbers.


def _dots(u: Array, v: Array) -> Array:
    u = u + 0.5 * (np.floor(v) % 2)
    return np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.27


def _flowers(u: Array, v: Array) -> Array:
    x, y = (u + 0.5 * (np.floor(v) % 2)) % 1 - 0.5, v % 1 - 0.5
    r = np.hypot(x, y)
    petals: Array = r < 0.27 + 0.13 * np.cos(5 * np.arctan2(y, x))
    return petals & (r > 0.08)


PATTERNS: Mapping[str, Callable[[Array, Array], Array]] = {
    "plain": lambda u, v: np.zeros_like(u),
    "striped": lambda u, v: v % 1 < 0.5,
    "pinstriped": lambda u, v: u % 1 < 0.28,
    "diagonal": lambda u, v: (u + v) % 1 < 0.5,
    "dotted": _dots,
    "gingham": lambda u, v: ((u % 1 < 0.5) * 1 + (v % 1 < 0.5)) / 2,
    "chequered": lambda u, v: (u % 1 < 0.5) ^ (v % 1 < 0.5),
    "zigzag": lambda u, v: (v + np.abs(u % 1 - 0.5)) % 1 < 0.45,
    "wavy": lambda u, v: (v + 0.18 * np.sin(2 * np.pi * u)) % 1 < 0.45,
    "flowered": _flowers,
}


# Surfaces: the point of the pattern at a point of the picture, so that patterns follow the product.


def _flat(x: Array, y: Array) -> tuple[Array, Array]:
    return x, y


def _round(x: Array, y: Array) -> tuple[Array, Array]:
    side = np.clip((x - 0.5) / 0.36, -0.98, 0.98)
    return 0.36 * np.arcsin(side), y - 0.07 * np.sqrt(1 - side**2)


def _polar(x: Array, y: Array) -> tuple[Array, Array]:
    # Turns and, near the rim, the radius in the same unit: a whole `scale` closes the ring.
    return np.arctan2(y - 0.5, x - 0.5) / (2 * np.pi), np.hypot(x - 0.5, y - 0.5) / 1.9


@cache
def _pattern_points(surface: Surface) -> tuple[Array, Array]:
    grid = (np.arange(DRAWN, dtype=np.float32) + 0.5) / DRAWN
    return surface(*np.meshgrid(grid, grid))


# Outlines, in a square from 0 to 1 with y downwards.


def _smooth(corners: Points) -> Points:
    """A closed curve inside the corners; a corner given twice stays sharp."""
    points = np.array(corners)
    for _ in range(4):  # Chaikin's corner cutting
        after = np.roll(points, -1, axis=0)
        cut = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1)
        points = cut.reshape(-1, 2)
    return points


def _oval(
    x: float, y: float, rx: float, ry: float, turn: tuple[int, int] = (0, 360), power: float = 2
) -> Points:
    """An arc of an ellipse, in degrees clockwise from the right; a higher power is squarer."""
    angles = np.radians(np.linspace(*turn, 97))
    unit = np.stack([np.cos(angles), np.sin(angles)], 1)
    arc: Array = np.sign(unit) * np.abs(unit) ** (2 / power) * (rx, ry) + (x, y)
    return arc


def _turned(top: float, bottom: float, widths: Sequence[float], x: float = 0.5) -> Points:
    """A solid of revolution seen a little from above; `widths` are half widths from top to bottom."""
    given = np.interp(np.linspace(0, len(widths) - 1, 49), range(len(widths)), widths)
    width = np.convolve(np.pad(given, 4, "edge"), np.full(9, 1 / 9), "valid")
    left, right = (np.stack([x + w, np.linspace(top, bottom, 49)], 1) for w in (-width, width))
    return [*right, *_oval(x, bottom, width[-1], 0.2 * width[-1], (0, 180)), *left[::-1]]


def _flipped(points: Points) -> Points:
    return [(1 - x, y) for x, y in points]


def _mirrored(right: Points) -> Points:
    return [*right, *_flipped(right)[::-1]]


def _mixed(a: Colour, b: str, share: float) -> Colour:
    return tuple(round(p + (q - p) * share) for p, q in zip(a, COLOURS[b], strict=True))


def _blurred(mask: Image.Image, radius: float) -> Image.Image:
    small = mask.reduce(4)  # a wide blur is slow on a fine grid, and a soft edge needs none
    return small.filter(ImageFilter.GaussianBlur(radius / 4)).resize(mask.size)


class Canvas:
    """A transparent square to draw a product on, with its patterned cloth and its two colours."""

    def __init__(self, cloth: Image.Image, colour: Colour, second: Colour):
        self.cloth, self.colour, self.second = cloth, colour, second
        self.image = Image.new("RGBA", cloth.size)

    def part(self, outline: Points, paint: Paint, depth: float = 0.4, bulge: float = 0.05) -> None:
        """Draw a filled outline, darker by `depth` towards its edges over a width of `bulge`."""
        corners, pad = np.array(outline) * DRAWN, 4 + 1.5 * bulge * DRAWN
        left, top = (int(edge) for edge in corners.min(axis=0) - pad)
        right, bottom = (int(edge) for edge in corners.max(axis=0) + pad)
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).polygon((corners - (left, top)).ravel().tolist(), fill=255)
        if isinstance(paint, Image.Image):
            fill = paint.crop((left, top, right, bottom))
        else:
            fill = Image.new("RGB", mask.size, paint)
        if depth:
            # Light comes from the upper left, so the far edges are darker.
            away = -round(bulge * DRAWN * 0.35)
            soft = ImageChops.offset(_blurred(mask, bulge * DRAWN), away, away)
            light = soft.point([round(255 - depth * (255 - i)) for i in range(256)])
            fill = ImageChops.multiply(fill, Image.merge("RGB", [light] * 3))
        self.image.paste(fill, (left, top), mask)

    def band(self, path: Points, width: float, paint: Paint, depth: float = 0.4) -> None:
        """Draw a band along a path: a handle, a seam, a lace."""
        points = np.array(path)
        along = np.gradient(points, axis=0)
        across = along[:, ::-1] * (-1, 1) / np.hypot(*along.T)[:, None] * width / 2
        self.part([*(points + across), *(points - across)[::-1]], paint, depth, width / 3)


# One drawing function for each category; a shape is a row of its arguments.


def _mug(c: Canvas, widths: Sequence[float], height: float, handle: float) -> None:
    x, top, rim = 0.5 - handle / 2.5, 0.5 - height / 2, widths[0]
    if handle:
        side = x + widths[len(widths) // 3] - 0.015
        c.band(_oval(side, 0.49, handle * 1.15, height * 0.29, (-90, 90)), 0.05, c.colour)
    c.part(_turned(top, top + height, widths, x), c.cloth, 0.5, 0.09)
    c.part(_oval(x, top, rim, rim * 0.2), _mixed(c.colour, "white", 0.35), 0.1)
    c.part(_oval(x, top + 0.004, rim * 0.94, rim * 0.165), _mixed(c.colour, "ink", 0.45), 0.5)


def _top(c: Canvas, arm: float, droop: float, hem: float, flare: float, neck: str) -> None:
    shoulder, armpit = ((0.7, 0.235), (0.685, 0.41)) if arm else ((0.64, 0.19), (0.675, 0.4))
    low = {"round": 0.26, "scoop": 0.32, "v": 0.33, "collar": 0.26, "hood": 0.28}[neck]
    inside, trim = _mixed(c.colour, "ink", 0.45), c.second
    if neck == "hood":
        c.part(_smooth(_mirrored([(0.5, 0.08), (0.62, 0.08), (0.65, 0.2), (0.6, 0.3)])), c.cloth)
    if arm:
        along = np.array([np.cos(np.radians(droop)), np.sin(np.radians(droop))])
        cuff = shoulder + along * arm
        wrist = cuff + along[::-1] * (-1, 1) * (0.11 if arm < 0.3 else 0.08)
        sleeve: Points = [(0.64, 0.22), shoulder, cuff, wrist, armpit, (0.64, 0.36)]
        for side in (sleeve, _flipped(sleeve)):
            c.part(side, c.cloth, 0.45, 0.04)
    yoke = [(0.59, 0.19)] * 2 + [shoulder] * 2 + ([] if arm else [(0.6, 0.3), (0.61, 0.39)])
    waist = [armpit, armpit, (0.66, 0.55), (0.665 + flare * 0.4, 0.68)]
    edge = [(0.675 + flare, hem), (0.58, hem + 0.015 + flare * 0.2)]
    c.part(_smooth(_mirrored([*yoke, *waist, edge[0], *edge])), c.cloth)
    c.band(np.array(_mirrored(edge)) - (0, 0.03), 0.004, inside, 0)
    hole = [(0.59, 0.185), (0.5, low), (0.41, 0.185)]
    rim = hole if neck == "v" else _oval(0.5, 0.185, 0.09, low - 0.185, (0, 180))
    c.part([*rim, *_oval(0.5, 0.185, 0.09, 0.02, (180, 360))], inside, 0.3, 0.02)
    c.band(rim, 0.018, trim, 0.3)
    if neck == "collar":
        c.band([(0.5, low), (0.5, low + 0.13)], 0.03, trim, 0.2)
        wing = [(0.5, low + 0.01), (0.59, 0.165), (0.62, 0.22), (0.57, low + 0.05)]
        c.part(wing, trim, 0.35, 0.02)
        c.part(_flipped(wing), trim, 0.35, 0.02)
    if neck == "hood":
        c.part(_mirrored([(0.58, 0.6), (0.62, 0.74)]), c.cloth, 0.4, 0.02)
        c.band([(0.46, low), (0.46, low + 0.15)], 0.01, COLOURS["white"], 0.2)
        c.band([(0.54, low), (0.54, low + 0.15)], 0.01, COLOURS["white"], 0.2)


def _shoe(c: Canvas, collar: float, throat: Point, toe: float, heel: float, laces: int) -> None:
    ground, floor, (tx, ty) = 0.74, 0.72 if heel else 0.685, throat
    top, x, y = (0.15, 0.5 - collar), (0.15 + tx) / 2, (0.5 - collar + ty) / 2
    lining = [top, top, (x - 0.03, y - 0.03), throat, throat, (x, y + 0.09)]
    c.part(_smooth(lining), _mixed(c.colour, "ink", 0.65), 0)
    back = [(0.13, floor - heel)] * 2 + [(0.125, 0.55), top, top, (x, y + 0.05)]
    instep = [throat, throat, (tx + 0.06, max(0.5, ty)), (0.68, toe - 0.02), (0.83, toe - 0.02)]
    tip, arch = [(0.91, toe + 0.06)] + [(0.9, floor)] * 2, [(0.55, floor), (0.4, floor - heel)]
    c.part(_smooth([*back, *instep, *tip, *arch]), c.cloth, 0.45, 0.06)
    if laces > 4:  # a high shoe has a toe cap as well
        cap = [(0.76, floor), (0.76, floor), (0.75, toe), (0.83, toe - 0.018), *tip]
        c.part(_smooth(cap), c.second, 0.35, 0.03)
    sole = [(0.105, floor - heel), (0.4, floor - heel), (0.55, floor), (0.92, floor)]
    sole += [(0.925, ground), (0.55, ground), (0.42, ground - heel)]
    sole += [(0.25, ground - heel * 0.7), (0.2, ground), (0.13 if heel else 0.1, ground)]
    sole = np.repeat(sole, [1, 2, 2, 1, 1, 2, 2, 2, 2, 1], axis=0).tolist()  # round at its ends
    c.part(_smooth(sole), _mixed(c.second, "ink", 0.12), 0.35, 0.02)
    for share in np.linspace(0.12, 0.85, laces):
        x, y = tx + (0.62 - tx) * share**1.3, ty + (toe - ty) * share
        c.band([(x - 0.06, y + 0.05), (x + 0.01, y + 0.015)], 0.018, COLOURS["white"], 0.3)


def _bag(c: Canvas, top: float, foot: float, height: float, handle: Point, front: str) -> None:
    (wide, tall), corner = handle, 0.2 if front == "pocket" else 0.03
    y1 = 0.5 + (height + tall) / 2
    y0, r, f = y1 - height, 0.5 + top, 0.5 + foot
    leather = _mixed(c.second, "ink", 0.15)
    if tall:
        c.band(_oval(0.5, y0 + 0.04, wide, tall + 0.04, (180, 360)), 0.034, leather)
    sides = [(r - corner, y0), (r, y0), (r, y0 + corner), (f, y1 - 0.06), (f, y1), (f - 0.08, y1)]
    c.part(_smooth(_mirrored(sides)), c.cloth, 0.45, 0.06)
    if front == "open":
        c.band([(1.02 - r, y0 + 0.04), (r - 0.02, y0 + 0.04)], 0.01, leather, 0)
    if front == "pocket":
        x, y = 0.5 + foot * 0.72, y1 - height * 0.4
        c.part(_smooth(_mirrored([(x, y), (x, y), (x, y1 - 0.04)])), c.cloth, 0.5, 0.025)
        c.band([(1 - x, y + 0.055), (x, y + 0.055)], 0.012, leather, 0.2)
        c.band(_oval(0.5, y - 0.03, x - 0.5, y - y0 - 0.1, (180, 360), 3), 0.01, leather, 0.2)
    if front == "flap":
        low = y0 + height * 0.58
        edge = [(r + 0.008, low - 0.08), (r - 0.02, low), (0.55, low + 0.02)]
        flap = np.array(_smooth(_mirrored([(r, y0), (r, y0), *edge])))
        c.part(flap * (1, 1.02), leather, 0.3, 0.02)  # its seam, just below
        c.part(flap, c.cloth, 0.5, 0.04)
        c.part(_oval(0.5, low + 0.015, 0.03, 0.035, power=4), COLOURS["brass"], 0.4, 0.015)


def _lamp(
    c: Canvas, shade: Sequence[float], high: float, base: Sequence[float], stem: float
) -> None:
    top, join = 0.12, 0.12 + high
    c.band([(0.5, join - 0.05), (0.5, join + stem + 0.02)], 0.022, COLOURS["brass"])
    c.part(_turned(join + stem, 0.86, base), c.second, 0.5)
    c.part(_turned(top, join, shade), c.cloth, 0.35, 0.07)
    c.part(_oval(0.5, top, shade[0], shade[0] * 0.2), (255, 240, 200), 0.15, 0.02)


def _plate(c: Canvas, rx: float, ry: float, power: float, well: float) -> None:
    groove, inner = _mixed(c.colour, "ink", 0.2), _mixed(c.colour, "ink", 0.04)
    c.part(_oval(0.5, 0.5, rx, ry, power=power), groove, 0.3, 0.02)
    c.part(_oval(0.5, 0.5, rx - 0.01, ry - 0.01, power=power), c.cloth, 0.25, 0.04)
    rx, ry = rx * well, ry * well
    c.part(_oval(0.5, 0.5, rx, ry, power=power), groove, 0)
    c.part(_oval(0.502, 0.504, rx - 0.01, ry - 0.01, power=power), inner, 0.15)


class Category(NamedTuple):
    """How the products of a category are drawn: standing, or lying and seen from above."""

    name: str
    draw: Callable[..., None]
    surface: Surface
    stands: bool


CATEGORIES: Mapping[int, Category] = {
    1: Category("mugs", _mug, _round, stands=True),
    2: Category("tops", _top, _flat, stands=False),
    3: Category("shoes", _shoe, _flat, stands=True),
    4: Category("bags", _bag, _flat, stands=True),
    5: Category("lamps", _lamp, _round, stands=True),
    6: Category("plates", _plate, _polar, stands=False),
}
# The arguments of a category's drawing function after the canvas.
# fmt: off
SHAPES: Mapping[str, tuple[Any, ...]] = {
    "mug": ((0.2, 0.2, 0.2, 0.195), 0.42, 0.11), "teacup": ((0.25, 0.245, 0.21, 0.12), 0.3, 0.09),
    "tall mug": ((0.17, 0.165, 0.155, 0.145), 0.58, 0.1), "tumbler": ((0.2, 0.17, 0.14), 0.54, 0),
    "bowl": ((0.31, 0.30, 0.25, 0.13), 0.3, 0),
    "t-shirt": (0.2, 48, 0.82, 0, "round"), "long-sleeve": (0.5, 68, 0.82, 0, "round"),
    "v-neck": (0.18, 50, 0.82, 0, "v"), "polo": (0.2, 52, 0.8, 0, "collar"),
    "hoodie": (0.5, 66, 0.82, 0.01, "hood"), "tank top": (0, 0, 0.8, 0.02, "scoop"),
    "dress": (0, 0, 0.87, 0.12, "round"),
    "sneaker": (0.1, (0.44, 0.41), 0.58, 0, 4), "high-top": (0.27, (0.4, 0.22), 0.58, 0, 6),
    "slip-on": (0.06, (0.5, 0.46), 0.58, 0, 0), "boot": (0.34, (0.42, 0.15), 0.57, 0, 0),
    "pump": (0.08, (0.62, 0.575), 0.62, 0.14, 0),
    "tote": (0.26, 0.24, 0.5, (0.13, 0.22), "open"),
    "handbag": (0.22, 0.31, 0.4, (0.15, 0.24), "open"),
    "backpack": (0.235, 0.25, 0.64, (0.06, 0.07), "pocket"),
    "satchel": (0.31, 0.31, 0.44, (0.1, 0.1), "flap"), "clutch": (0.34, 0.34, 0.38, (0, 0), "flap"),
    "drum lamp": ((0.24, 0.24), 0.3, (0.06, 0.12, 0.13, 0.07), 0.08),
    "cone lamp": ((0.11, 0.28), 0.34, (0.03, 0.03, 0.15), 0.24),
    "globe lamp": ((0.08, 0.18, 0.24, 0.26, 0.26, 0.24, 0.18, 0.08), 0.46, (0.12, 0.14), 0.1),
    "mushroom lamp": ((0.07, 0.25, 0.32, 0.34), 0.26, (0.07, 0.08, 0.15), 0.02),
    "floor lamp": ((0.13, 0.19), 0.2, (0.13, 0.15), 0.5),
    "plate": (0.38, 0.38, 2, 0.68), "square plate": (0.34, 0.34, 6, 0.7),
    "platter": (0.42, 0.27, 2.4, 0.7), "saucer": (0.28, 0.28, 2, 0.45),
}
# fmt: on


class Family(NamedTuple):
    """What the products of a family have in common; `scale` is the pattern's repeats in a unit."""

    category_id: int
    pattern: str
    colour: str
    shape: str
    second: str
    scale: int = 1

    @property
    def name(self) -> str:
        """For example "striped red long-sleeve"."""
        return f"{self.pattern} {self.colour} {self.shape}"


# By category id: pattern, colour, shape, second colour, scale.
# fmt: off
_FAMILIES: Mapping[int, Sequence[tuple[Any, ...]]] = {
    1: (
        ("striped", "white", "mug", "red", 10), ("plain", "teal", "mug", "white"),
        ("zigzag", "yellow", "tall mug", "white", 8), ("plain", "navy", "tall mug", "white"),
        ("flowered", "cream", "teacup", "coral", 10), ("diagonal", "green", "tumbler", "cream", 6),
        ("dotted", "navy", "tumbler", "white", 9), ("dotted", "sky", "bowl", "navy", 16),
    ),
    2: (
        ("plain", "red", "t-shirt", "red"), ("dotted", "blue", "v-neck", "white", 13),
        ("striped", "red", "long-sleeve", "white", 14), ("plain", "black", "long-sleeve", "grey"),
        ("pinstriped", "mint", "polo", "white", 18), ("plain", "grey", "hoodie", "grey"),
        ("diagonal", "coral", "tank top", "cream", 8), ("flowered", "purple", "dress", "pink", 10),
    ),
    3: (
        ("plain", "white", "sneaker", "sky"), ("zigzag", "orange", "sneaker", "navy", 12),
        ("plain", "red", "high-top", "white"), ("gingham", "black", "high-top", "white", 12),
        ("chequered", "yellow", "slip-on", "black", 14), ("striped", "sky", "slip-on", "white", 16),
        ("plain", "brown", "boot", "black"), ("dotted", "pink", "pump", "white", 16),
    ),
    4: (
        ("striped", "cream", "tote", "navy", 11), ("flowered", "mint", "tote", "green", 9),
        ("plain", "orange", "backpack", "brown"), ("diagonal", "blue", "backpack", "navy", 9),
        ("plain", "blue", "handbag", "black"), ("chequered", "pink", "handbag", "white", 13),
        ("plain", "brown", "satchel", "black"), ("zigzag", "yellow", "clutch", "grey", 12),
    ),
    5: (
        ("plain", "cream", "drum lamp", "teal"), ("gingham", "red", "drum lamp", "white", 10),
        ("pinstriped", "green", "cone lamp", "cream", 14), ("plain", "black", "cone lamp", "black"),
        ("plain", "yellow", "globe lamp", "white"), ("striped", "blue", "floor lamp", "white", 16),
        ("plain", "red", "mushroom lamp", "red"), ("dotted", "sky", "mushroom lamp", "white", 10),
    ),
    6: (
        ("plain", "white", "plate", "white"), ("striped", "white", "plate", "blue", 22),
        ("flowered", "cream", "plate", "red", 16), ("plain", "black", "square plate", "black"),
        ("chequered", "mint", "square plate", "white", 20), ("wavy", "teal", "platter", "white", 16),
        ("plain", "orange", "platter", "orange"), ("dotted", "yellow", "saucer", "coral", 18),
    ),
}
# fmt: on
FAMILIES = tuple(Family(id_, *row) for id_, rows in _FAMILIES.items() for row in rows)


def _dyed(colour: str, rng: np.random.Generator) -> Colour:
    dye = np.array(COLOURS[colour]) * rng.normal(1, 0.02) * rng.normal(1, 0.01, 3)
    return tuple(np.clip(dye, 0, 250).astype(int).tolist())


def _product(family: Family, rng: np.random.Generator) -> Image.Image:
    category = CATEGORIES[family.category_id]
    colour, second = _dyed(family.colour, rng), _dyed(family.second, rng)
    u, v = (
        points * family.scale + start
        for points, start in zip(
            _pattern_points(category.surface), rng.random(2).tolist(), strict=True
        )
    )
    share = PATTERNS[family.pattern](u, v)
    cloth = Image.new("RGB", (DRAWN, DRAWN), colour)
    cloth.paste(second, (0, 0), Image.fromarray((share * 255).astype(np.uint8)))
    canvas = Canvas(cloth, colour, second)
    category.draw(canvas, *SHAPES[family.shape])
    return canvas.image


def _photo(drawn: Image.Image, stands: bool, rng: np.random.Generator) -> Image.Image:
    """The product with its shadow, moved and tilted a little: RGBA of SIZE × SIZE."""
    tilt = np.radians(rng.uniform(-2, 2) if stands else rng.uniform(-5, 5))
    cos, sin, half = np.cos(tilt), np.sin(tilt), DRAWN / 2
    wide, tall = rng.uniform(0.93, 1.06) * rng.uniform(0.97, 1.03, 2)
    x, y = half + DRAWN * rng.uniform(-0.02, 0.02, 2)
    across = (cos / wide, sin / wide, half - (cos * x + sin * y) / wide)
    down = (-sin / tall, cos / tall, half + (sin * x - cos * y) / tall)
    affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    placed = drawn.transform(drawn.size, affine, across + down, bilinear).reduce(2)
    alpha = placed.getchannel("A")
    shadow = Image.new("L", alpha.size)
    fall = _blurred(alpha, 11).point([round(i * 0.22) for i in range(256)])
    shadow.paste(fall, (round(rng.uniform(-4, 8)), 8))
    if stands:
        left, _, right, bottom = alpha.getbbox() or (0, 0, SIZE, SIZE)
        contact = Image.new("L", alpha.size)
        ImageDraw.Draw(contact).ellipse((left + 20, bottom - 12, right - 20, bottom + 8), fill=110)
        shadow = ImageChops.lighter(shadow, _blurred(contact, 7))
    picture = Image.new("RGBA", placed.size, (40, 38, 46, 0))
    picture.putalpha(shadow)
    picture.alpha_composite(placed)
    return picture


def _backdrop(rng: np.random.Generator) -> Image.Image:
    tint = 249 + rng.uniform(-2, 2) + rng.uniform(-2, 2, 3)
    ends = np.stack([tint + 2, tint - 3])[:, None]
    return Image.fromarray(np.clip(ends, 0, 255).astype(np.uint8)).resize((SIZE, SIZE))


def _draw(path: Path, family: Family, rng: np.random.Generator) -> None:
    picture = _photo(_product(family, rng), CATEGORIES[family.category_id].stands, rng)
    if path.suffix == ".png":  # cut out, as some shops have them
        picture.save(path)
        return
    photo = _backdrop(rng)
    photo.paste(picture, (0, 0), picture)
    light = rng.uniform(0.97, 1.03)
    photo.point([min(255, round(i * light)) for i in range(256)] * 3).save(path, quality=90)


def draw_catalogue(folder: Path, seed: int = 0, products_per_family: int = 10) -> Path:
    """Draw the catalogue into `folder` and return the path of its `catalogue.csv`.

    The columns are `product_id,category_id,image,category,family`, with `image` relative to the CSV
    file: mostly JPEG, a few cut-out PNG and WebP. Product ids are shuffled, so that the order of ids or
    rows gives no right answers. The same seed and the same Pillow give the same bytes.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    numbers, copies = range(len(FAMILIES)), range(products_per_family)
    rows, jobs = [], []
    shuffled = np.random.default_rng(seed).permutation(list(product(numbers, copies))).tolist()
    for product_id, (number, copy) in enumerate(shuffled, FIRST_PRODUCT_ID):
        family = FAMILIES[number]
        image = f"images/{product_id}{SUFFIXES.get(copy % 10, '.jpg')}"
        category_id = family.category_id
        rows.append((product_id, category_id, image, CATEGORIES[category_id].name, family.name))
        jobs.append((folder / image, family, np.random.default_rng((seed, number, copy))))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: _draw(*job), jobs))
    catalogue = folder / "catalogue.csv"
    with catalogue.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("product_id", "category_id", "image", "category", "family"))
        writer.writerows(rows)
    return catalogue
