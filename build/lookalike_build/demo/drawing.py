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
from itertools import cycle, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageEnhance, ImageFilter

SIZE = 360
_DRAWN = 2 * SIZE  # drawn at twice the size: ImageDraw has no antialiasing of its own
_FIRST_PRODUCT_ID = 1001
_FAMILIES_A_CATEGORY = 8
_FORMATS = {3: "PNG", 7: "WebP"}  # by number among ten of a family; the rest are JPEG

Array = NDArray[Any]
Colour = tuple[int, ...]  # red, green, blue
Paint = Image.Image | Colour
Points = Sequence[Any] | Array  # (x, y) each, in a square from 0 to 1 with y downwards
Point = tuple[float, float]
Widths = Sequence[float]
Surface = Callable[[Array, Array], tuple[Array, Array]]


def _cell(u: Array, v: Array) -> Array:
    """The place x + iy in a square cell, from its middle; every other row is shifted by half a cell."""
    place: Array = (u + 0.5 * (np.floor(v) % 2)) % 1 - 0.5 + 1j * (v % 1 - 0.5)
    return place


def _flowers(u: Array, v: Array) -> Array:
    cell = _cell(u, v)
    petals: Array = np.abs(np.abs(cell) - 0.17 - 0.06 * np.cos(5 * np.angle(cell))) < 0.12
    return petals


PATTERNS: Mapping[str, Callable[[Array, Array], Array]] = {
    "plain": lambda u, v: np.zeros_like(u),
    "striped": lambda u, v: v % 1 < 0.5,
    "pinstriped": lambda u, v: u % 1 < 0.28,
    "diagonal": lambda u, v: (u + v) % 1 < 0.5,
    "dotted": lambda u, v: np.abs(_cell(u, v)) < 0.27,
    "gingham": lambda u, v: ((u % 1 < 0.5) * 1 + (v % 1 < 0.5)) / 2,
    "chequered": lambda u, v: (u % 1 < 0.5) ^ (v % 1 < 0.5),
    "zigzag": lambda u, v: (v + np.abs(u % 1 - 0.5)) % 1 < 0.45,
    "wavy": lambda u, v: (v + 0.18 * np.sin(2 * np.pi * u)) % 1 < 0.45,
    "flowered": _flowers,
}
"""The share of the second colour at (u, v), 0 to 1. Patterns repeat at whole numbers."""


# Surfaces: the point of the pattern at a point of the picture, so that patterns follow the product.


def _flat(x: Array, y: Array) -> tuple[Array, Array]:
    return x, y


def _round(x: Array, y: Array) -> tuple[Array, Array]:
    side = np.clip((x - 0.5) / 0.36, -0.98, 0.98)
    return 0.36 * np.arcsin(side), y - 0.07 * np.sqrt(1 - side**2)


def _polar(x: Array, y: Array) -> tuple[Array, Array]:
    # Turns and, near the rim, the radius in the same unit: a whole number of repeats closes the ring.
    return np.arctan2(y - 0.5, x - 0.5) / (2 * np.pi), np.hypot(x - 0.5, y - 0.5) / 1.9


@cache
def _pattern_points(surface: Surface) -> tuple[Array, Array]:
    grid = (np.arange(_DRAWN, dtype=np.float32) + 0.5) / _DRAWN
    return surface(*np.meshgrid(grid, grid))


# Outlines


def _smooth(corners: Points) -> Array:
    """A closed curve inside the corners; a corner given twice stays sharp."""
    points = np.array(corners)
    for _ in range(4):  # Chaikin's corner cutting
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1)
        points = points.reshape(-1, 2)
    return points


def _oval(
    x: float, y: float, rx: float, ry: float, turn: tuple[int, int] = (0, 360), power: float = 2
) -> Array:
    """An arc of an ellipse, in degrees clockwise from the right; a higher power is squarer."""
    angles = np.radians(np.linspace(*turn, 97))
    unit = np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.asarray(np.sign(unit) * np.abs(unit) ** (2 / power) * (rx, ry) + (x, y))


def _turned(top: float, bottom: float, widths: Widths, x: float = 0.5) -> Points:
    """A solid of revolution seen a little from above; `widths` are half widths from top to bottom."""
    given = np.interp(np.linspace(0, len(widths) - 1, 49), range(len(widths)), widths)
    width = np.convolve(np.pad(given, 4, "edge"), np.full(9, 1 / 9), "valid")
    left, right = (np.stack([x + w, np.linspace(top, bottom, 49)], 1) for w in (-width, width))
    return [*right, *_oval(x, bottom, width[-1], 0.2 * width[-1], (0, 180)), *left[::-1]]


def _mirrored(right: Points) -> Points:
    return [*right, *(np.asarray(right) * (-1, 1) + (1, 0))[::-1]]


def _mixed(colour: Colour, other: str, share: float) -> Colour:
    pairs = zip(colour, ImageColor.getrgb(other), strict=True)
    return tuple(round(p + (q - p) * share) for p, q in pairs)


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
        corners, pad = np.array(outline) * _DRAWN, 4 + 1.5 * bulge * _DRAWN
        left, top = (int(edge) for edge in corners.min(axis=0) - pad)
        right, bottom = (int(edge) for edge in corners.max(axis=0) + pad)
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).polygon((corners - (left, top)).ravel().tolist(), fill=255)
        if isinstance(paint, Image.Image):
            fill = paint.crop((left, top, right, bottom))
        else:
            fill = Image.new("RGB", mask.size, paint)
        # Light comes from the upper left, so the far edges are darker.
        away = -round(bulge * _DRAWN * 0.35)
        soft = ImageChops.offset(_blurred(mask, bulge * _DRAWN), away, away)
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


def _mug(c: Canvas, widths: Widths, height: float, handle: float) -> None:
    x, top, rim = 0.5 - handle / 2.5, 0.5 - height / 2, widths[0]
    if handle:
        side = x + widths[len(widths) // 3] - 0.015
        c.band(_oval(side, 0.49, handle * 1.15, height * 0.29, (-90, 90)), 0.05, c.colour)
    c.part(_turned(top, top + height, widths, x), c.cloth, 0.5, 0.09)
    c.part(_oval(x, top, rim, rim * 0.2), _mixed(c.colour, "white", 0.35), 0.1)
    c.part(_oval(x, top + 0.004, rim * 0.94, rim * 0.165), _mixed(c.colour, "black", 0.4), 0.5)


def _top(c: Canvas, arm: float, droop: float, hem: float, flare: float, low: float) -> None:
    shoulder, armpit = ((0.7, 0.235), (0.685, 0.41)) if arm else ((0.64, 0.19), (0.675, 0.4))
    if arm:
        along = np.array([np.cos(np.radians(droop)), np.sin(np.radians(droop))])
        cuff = shoulder + along * arm
        wrist = cuff + along[::-1] * (-1, 1) * 0.1
        sleeve = [(0.64, 0.22), shoulder, cuff, wrist, armpit, (0.64, 0.36)]
        c.part(_mirrored(sleeve), c.cloth, 0.45, 0.04)
    yoke = [(0.59, 0.19)] * 2 + [shoulder] * 2 + ([] if arm else [(0.6, 0.3), (0.61, 0.39)])
    waist = [armpit, armpit, (0.66, 0.55), (0.665 + flare * 0.4, 0.68)]
    edge = [(0.675 + flare, hem)] * 2 + [(0.58, hem + 0.015 + flare * 0.2)]
    c.part(_smooth(_mirrored([*yoke, *waist, *edge])), c.cloth)
    rim = _oval(0.5, 0.185, 0.09, low, (0, 180), power=2 if low < 0.12 else 1.1)
    c.part([*rim, *_oval(0.5, 0.185, 0.09, 0.02, (180, 360))], _mixed(c.colour, "black", 0.4))
    c.band(rim, 0.018, c.second)


def _shoe(c: Canvas, collar: float, throat: Point, toe: float, heel: float, laces: int) -> None:
    floor, top, (tx, ty) = 0.72 if heel else 0.685, (0.15, 0.5 - collar), throat
    x, y = (0.15 + tx) / 2, (0.5 - collar + ty) / 2
    lining = [top, top, (x - 0.03, y - 0.03), throat, throat, (x, y + 0.09)]
    c.part(_smooth(lining), _mixed(c.colour, "black", 0.6))
    back = [(0.13, floor - heel)] * 2 + [(0.125, 0.55), top, top, (x, y + 0.05)]
    instep = [throat, throat, (tx + 0.06, max(0.5, ty)), (0.68, toe - 0.02), (0.83, toe - 0.02)]
    tip = [(0.91, toe + 0.06), (0.9, floor), (0.9, floor), (0.55, floor), (0.4, floor - heel)]
    c.part(_smooth([*back, *instep, *tip]), c.cloth, 0.45, 0.06)
    sole = [(0.105, floor - heel), (0.4, floor - heel), (0.55, floor), (0.92, floor)]
    sole += [(0.925, 0.74), (0.55, 0.74), (0.42, 0.74 - heel)]
    sole += [(0.25, 0.74 - heel * 0.7), (0.2, 0.74), (0.13 if heel else 0.1, 0.74)]
    c.part(_smooth(np.repeat(sole, 2, axis=0)), _mixed(c.second, "black", 0.12), 0.35, 0.02)
    for share in np.linspace(0.12, 0.85, laces):
        x, y = tx + (0.62 - tx) * share**1.3, ty + (toe - ty) * share
        c.band([(x - 0.06, y + 0.05), (x + 0.01, y + 0.015)], 0.018, (246, 244, 239))


def _bag(c: Canvas, top: float, foot: float, height: float, strap: float, front: str) -> None:
    y1 = 0.5 + (height + strap) / 2
    y0, r, f = y1 - height, 0.5 + top, 0.5 + foot
    corner = 0.2 if front == "pocket" else 0.03
    leather = _mixed(c.second, "black", 0.15)
    c.band(_oval(0.5, y0 + 0.04, 0.03 + strap / 2, strap + 0.04, (180, 360)), 0.034, leather)
    sides = [(r - corner, y0), (r, y0), (r, y0 + corner), (f, y1 - 0.06), (f, y1), (f - 0.08, y1)]
    c.part(_smooth(_mirrored(sides)), c.cloth, 0.45, 0.06)
    if front == "pocket":
        x, y = 0.5 + foot * 0.72, y1 - height * 0.4
        c.part(_smooth(_mirrored([(x, y), (x, y), (x, y1 - 0.04)])), c.cloth, 0.5, 0.025)
        c.band([(1 - x, y + 0.055), (x, y + 0.055)], 0.012, leather)
    if front == "flap":
        low = y0 + height * 0.58
        flap = [(r, y0), (r, y0), (r + 0.008, low - 0.08), (r - 0.02, low), (0.55, low + 0.02)]
        c.part(_smooth(_mirrored(flap)), c.cloth, 0.5, 0.04)
        c.part(_oval(0.5, low + 0.015, 0.03, 0.035, power=4), leather)


def _lamp(c: Canvas, shade: Widths, high: float, base: Widths, stem: float) -> None:
    top, join = 0.12, 0.12 + high
    c.band([(0.5, join - 0.05), (0.5, join + stem + 0.02)], 0.022, (196, 178, 138))
    c.part(_turned(join + stem, 0.86, base), c.second, 0.5)
    c.part(_turned(top, join, shade), c.cloth, 0.35, 0.07)
    c.part(_oval(0.5, top, shade[0], shade[0] * 0.2), (255, 240, 200), 0.15, 0.02)


def _plate(c: Canvas, rx: float, ry: float, power: float, well: float) -> None:
    groove, inner = _mixed(c.colour, "black", 0.16), _mixed(c.colour, "black", 0.03)
    c.part(_oval(0.5, 0.5, rx, ry, power=power), c.cloth, 0.25, 0.04)
    rx, ry = rx * well, ry * well
    c.part(_oval(0.5, 0.5, rx, ry, power=power), groove)
    c.part(_oval(0.502, 0.504, rx - 0.01, ry - 0.01, power=power), inner, 0.15)


class Category(NamedTuple):
    """How the products of a category are drawn: standing, or lying and seen from above.

    The pattern repeats `repeats` times in the width of the picture. `shapes` are the arguments of
    `draw` after the canvas.
    """

    name: str
    draw: Callable[..., None]
    surface: Surface
    repeats: int
    stands: bool
    shapes: Mapping[str, tuple[Any, ...]]


# fmt: off
CATEGORIES: Mapping[int, Category] = {
    1: Category("mugs", _mug, _round, 9, True, {
        "mug": ((0.2, 0.2, 0.2, 0.195), 0.42, 0.11), "bowl": ((0.31, 0.30, 0.25, 0.13), 0.3, 0),
        "tall mug": ((0.17, 0.165, 0.155, 0.145), 0.58, 0.1),
        "teacup": ((0.25, 0.245, 0.21, 0.12), 0.3, 0.09), "tumbler": ((0.2, 0.17, 0.14), 0.54, 0),
    }),
    2: Category("tops", _top, _flat, 12, False, {
        "t-shirt": (0.2, 48, 0.82, 0, 0.075), "long-sleeve": (0.5, 68, 0.82, 0, 0.075),
        "v-neck": (0.18, 50, 0.82, 0, 0.15), "tank top": (0, 0, 0.8, 0.02, 0.11),
        "dress": (0, 0, 0.87, 0.12, 0.075),
    }),
    3: Category("shoes", _shoe, _flat, 14, True, {
        "sneaker": (0.1, (0.44, 0.41), 0.58, 0, 4), "high-top": (0.27, (0.4, 0.22), 0.58, 0, 6),
        "slip-on": (0.06, (0.5, 0.46), 0.58, 0, 0), "boot": (0.34, (0.42, 0.15), 0.57, 0, 0),
        "pump": (0.08, (0.62, 0.575), 0.62, 0.14, 0),
    }),
    4: Category("bags", _bag, _flat, 11, True, {
        "tote": (0.26, 0.24, 0.5, 0.22, "open"), "backpack": (0.235, 0.25, 0.64, 0.07, "pocket"),
        "handbag": (0.22, 0.31, 0.4, 0.24, "open"), "satchel": (0.31, 0.31, 0.44, 0.1, "flap"),
        "clutch": (0.34, 0.34, 0.38, 0, "flap"),
    }),
    5: Category("lamps", _lamp, _round, 10, True, {
        "drum lamp": ((0.24, 0.24), 0.3, (0.06, 0.12, 0.13, 0.07), 0.08),
        "cone lamp": ((0.11, 0.28), 0.34, (0.03, 0.03, 0.15), 0.24),
        "globe lamp": ((0.08, 0.18, 0.24, 0.26, 0.26, 0.24, 0.18, 0.08), 0.46, (0.12, 0.14), 0.1),
        "mushroom lamp": ((0.07, 0.25, 0.32, 0.34), 0.26, (0.07, 0.08, 0.15), 0.02),
        "floor lamp": ((0.13, 0.19), 0.2, (0.13, 0.15), 0.5),
    }),
    6: Category("plates", _plate, _polar, 18, False, {
        "plate": (0.38, 0.38, 2, 0.68), "square plate": (0.34, 0.34, 6, 0.7),
        "platter": (0.42, 0.27, 2.4, 0.7), "saucer": (0.28, 0.28, 2, 0.45),
    }),
}
CLOTHS = (
    ("plain", "crimson", "white"), ("plain", "teal", "white"), ("striped", "ivory", "navy"),
    ("flowered", "linen", "coral"), ("dotted", "royalblue", "white"), ("gingham", "tomato", "white"),
    ("plain", "darkorange", "sienna"), ("plain", "steelblue", "navy"),
    ("zigzag", "gold", "slategray"), ("dotted", "navy", "white"), ("plain", "dimgray", "silver"),
    ("pinstriped", "seagreen", "linen"), ("chequered", "pink", "white"),
    ("striped", "skyblue", "white"), ("flowered", "orchid", "lavender"), ("wavy", "turquoise", "teal"),
)
"""Pattern, colour and second colour."""
# fmt: on


class Family(NamedTuple):
    """What the products of a family have in common."""

    category_id: int
    shape: str
    pattern: str
    colour: str
    second: str

    @property
    def name(self) -> str:
        """For example "striped skyblue long-sleeve"."""
        return f"{self.pattern} {self.colour} {self.shape}"


FAMILIES = tuple(
    Family(category_id, shape, *CLOTHS[(3 * number + 5 * category_id) % len(CLOTHS)])
    for category_id, category in CATEGORIES.items()
    for number, shape in zip(range(_FAMILIES_A_CATEGORY), cycle(category.shapes), strict=False)
)


def _dyed(name: str, rng: np.random.Generator) -> Colour:
    dye = np.array(ImageColor.getrgb(name)) * rng.normal(1, 0.02) * rng.normal(1, 0.01, 3)
    return tuple(np.clip(dye, 0, 250).astype(int).tolist())


def _product(family: Family, rng: np.random.Generator) -> Image.Image:
    category = CATEGORIES[family.category_id]
    colour, second = _dyed(family.colour, rng), _dyed(family.second, rng)
    u, v = (
        points * category.repeats + rng.random() for points in _pattern_points(category.surface)
    )
    cloth = Image.new("RGB", (_DRAWN, _DRAWN), colour)
    share = Image.fromarray((PATTERNS[family.pattern](u, v) * 255).astype(np.uint8))
    cloth.paste(second, (0, 0), share)
    canvas = Canvas(cloth, colour, second)
    category.draw(canvas, *category.shapes[family.shape])
    return canvas.image


def _photo(drawn: Image.Image, stands: bool, rng: np.random.Generator) -> Image.Image:
    """The product with its shadow, moved and tilted a little: RGBA of SIZE × SIZE."""
    tilted = drawn.rotate(rng.uniform(-1, 1) * (2 if stands else 5), Image.Resampling.BILINEAR)
    seen = _DRAWN / rng.uniform(1, 1.08) / rng.uniform(1, 1.04, 2)
    start = (_DRAWN - seen) * rng.uniform(0.3, 0.7, 2)
    placed = tilted.resize((SIZE, SIZE), box=(*start, *(start + seen)))
    alpha = placed.getchannel("A")
    shadow = ImageChops.offset(_blurred(alpha, 11), round(rng.uniform(-4, 8)), 8)
    shadow = shadow.point([round(i * 0.22) for i in range(256)])
    if stands:
        left, _, right, bottom = alpha.getbbox() or (0, 0, SIZE, SIZE)
        contact = Image.new("L", alpha.size)
        ImageDraw.Draw(contact).ellipse((left + 20, bottom - 12, right - 20, bottom + 8), fill=110)
        shadow = ImageChops.lighter(shadow, _blurred(contact, 7))
    picture = Image.new("RGBA", placed.size, (40, 38, 46))
    picture.putalpha(shadow)
    picture.alpha_composite(placed)
    return picture


def _draw(path: Path, format_: str, family: Family, rng: np.random.Generator) -> None:
    picture = _photo(_product(family, rng), CATEGORIES[family.category_id].stands, rng)
    if format_ == "PNG":  # cut out, as some shops have them
        picture.save(path, format_)
        return
    tint = 249 + rng.uniform(-2, 2) + rng.uniform(-2, 2, 3)
    photo = Image.new("RGB", picture.size, tuple(tint.astype(int).tolist()))
    photo.paste(picture, (0, 0), picture)
    ImageEnhance.Brightness(photo).enhance(rng.uniform(0.97, 1.03)).save(path, format_, quality=90)


def draw_catalogue(folder: Path, seed: int = 0, products_per_family: int = 10) -> Path:
    """Draw the catalogue into `folder` and return the path of its `catalogue.csv`.

    The columns are `product_id,category_id,image,category,family,price`, with `image` relative to the
    CSV file: `photos/` and the product id, mostly JPEG, a few cut-out PNG and WebP. Product ids are
    shuffled, so that the order of ids or rows gives no right answers. The same seed and the same
    Pillow give the same bytes.
    """
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    rows, jobs = [], []
    numbers = list(product(range(len(FAMILIES)), range(products_per_family)))
    shuffling = np.random.default_rng(seed)
    shuffled = shuffling.permutation(numbers).tolist()
    prices = shuffling.integers(5, 60, len(shuffled)).tolist()
    for (product_id, (number, copy)), price in zip(
        enumerate(shuffled, _FIRST_PRODUCT_ID), prices, strict=True
    ):
        family = FAMILIES[number]
        category = CATEGORIES[family.category_id].name
        image = f"photos/{product_id}"
        rows.append((product_id, family.category_id, image, category, family.name, price - 0.05))
        rng = np.random.default_rng((seed, number, copy))
        jobs.append((folder / image, _FORMATS.get(copy % 10, "JPEG"), family, rng))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: _draw(*job), jobs))
    catalogue = folder / "catalogue.csv"
    with catalogue.open("w", newline="", encoding="utf-8") as file:
        columns = ("product_id", "category_id", "image", "category", "family", "price")
        csv.writer(file).writerows([columns, *rows])
    return catalogue
