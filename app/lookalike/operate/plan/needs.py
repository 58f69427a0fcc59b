"""How much disk, memory and time a catalogue will need.

Sizes of files are exact except for Annoy's trees. Times and rates are estimates from `measured`.
"""

from dataclasses import dataclass
from math import ceil

from lookalike.operate.amounts import bytes_text, seconds_text
from lookalike.operate.plan import measured
from lookalike.operate.plan.machine import Machine
from lookalike.operate.plan.size import N_SPARE, Shape, Sizes, release_sizes, slim_bytes
from lookalike.operate.plan.times import EXTRA_SCORES, category_s, index_s, photos_s
from lookalike.release.files import FEATURES, HOT_FILES, INDEX, SLIM_FILES

_PROCESSES = 2


class PlanError(Exception):
    """The numbers of a catalogue contradict each other; the text says which."""


@dataclass(frozen=True)
class Catalogue:
    """The catalogue to plan for. `largest` is the size of the largest category, None if unknown.

    A fraction `changed` (0 to 1) of the categories is new each night; `keep` releases are kept; a photo
    from a URL takes `photo_bytes` in the cache.
    """

    products: int
    categories: int = 1
    largest: int | None = None
    changed: float = 1.0
    keep: int = 5
    photo_bytes: int = 100_000

    def sizes(self) -> list[int]:
        """Products by category, largest first, by rank^-0.8 unless known; PlanError if impossible."""
        if self.categories > self.products:
            raise PlanError(f"{self.categories} categories of {self.products} products")
        if self.largest is None:
            weights = [rank**-0.8 for rank in range(1, self.categories + 1)]
            spread = self.products - self.categories  # each category has at least one
            sizes = [1 + int(spread * weight / sum(weights)) for weight in weights]
            return [sizes[0] + self.products - sum(sizes), *sizes[1:]]
        others = self.categories - 1
        least = ceil(self.products / self.categories)
        most = self.products - others
        if not least <= self.largest <= most:
            raise PlanError(
                f"the largest of {self.categories} categories of {self.products} products has "
                f"{least} to {most}, not {self.largest}"
            )
        each, more = divmod(self.products - self.largest, others) if others else (0, 0)
        return [self.largest, *(each + (i < more) for i in range(others))]


@dataclass(frozen=True)
class Plan:
    """What `catalogue` needs: bytes, seconds and rates; `files` are those of a full release."""

    catalogue: Catalogue
    shape: Shape
    machine: Machine
    files: Sizes
    largest: int
    mean: int
    release_bytes: int
    slim_bytes: int
    disk_bytes: int
    slim_disk_bytes: int
    store_bytes: int
    photos_bytes: int
    hot_bytes: int
    vector_bytes: int
    process_bytes: int
    index_memory_bytes: int
    index_cache_bytes: int
    extract_memory_bytes: int
    photos_s: float
    extract_s: float
    mean_category_s: float
    largest_category_s: float
    index_s: float
    requests_s: float
    vectors_s: float
    serving_cores: int | None

    def lines(self) -> list[str]:
        """The table, as printed."""
        catalogue, shape = self.catalogue, self.shape
        ids = "whole numbers" if shape.id_bytes is None else f"strings of {shape.id_bytes} bytes"
        serving, building = self._to_serve(), self._to_build()
        width = max(len(row[0]) for row in (*serving, *building))
        return [
            f"{catalogue.products:,} products in {catalogue.categories:,} categories, "
            f"{shape.neighbours} neighbours, {shape.n_dims} dimensions, ids {ids}",
            "",
            *(f"{one:<{width}}  {two:>10}  {three:>10}".rstrip() for one, two, three in serving),
            *(f"{one:<{width}}  {two:>10}".rstrip() for one, two in building),
            "",
            *self._notes(),
        ]

    def _to_serve(self) -> list[tuple[str, str, str]]:
        catalogue = self.catalogue
        changed = f"{100 * catalogue.changed:g} % of categories new each"
        rows = [
            ("DISK", "full", "slim"),
            *(
                (f"  {name}", bytes_text(size), self._slim(name))
                for name, size in self.files.items()
            ),
            ("a release", bytes_text(self.release_bytes), bytes_text(self.slim_bytes)),
            (
                f"{catalogue.keep} kept and one made, {changed}",
                bytes_text(self.disk_bytes),
                bytes_text(self.slim_disk_bytes),
            ),
            _both("MEMORY TO SERVE"),
            _both("what look-ups touch", bytes_text(self.hot_bytes)),
            _both("  twice, while a release changes", bytes_text(2 * self.hot_bytes)),
            _both(
                f"{_PROCESSES} processes, each {bytes_text(self.process_bytes)}",
                bytes_text(_PROCESSES * self.process_bytes),
            ),
            (
                f"for vectors, and up to {bytes_text(self.files[FEATURES])} more",
                bytes_text(self.vector_bytes),
                "none",
            ),
            _both(f"REQUESTS/S, {self.machine.cores} cores"),
            _both("limit=12", f"{self.requests_s:,.0f}"),
            ("a vector", f"{self.vectors_s:,.0f}", "none"),
        ]
        if self.serving_cores is not None:
            rows.append(_both("cores for the requests asked for", str(self.serving_cores)))
        return rows

    def _to_build(self) -> list[tuple[str, str]]:
        catalogue = self.catalogue
        assumed = ", assumed" if catalogue.largest is None and catalogue.categories > 1 else ""
        return [
            ("TO BUILD", ""),
            ("feature store, twice while all is extracted", bytes_text(self.store_bytes)),
            (
                f"photo cache, {bytes_text(catalogue.photo_bytes)} a photo",
                bytes_text(self.photos_bytes),
            ),
            ("memory to extract", bytes_text(self.extract_memory_bytes)),
            ("memory to index", bytes_text(self.index_memory_bytes)),
            ("  and for the page cache, else slower", bytes_text(self.index_cache_bytes)),
            (f"extract all, {self.photos_s:.3g} photos/s", seconds_text(self.extract_s)),
            (f"index the mean category, {self.mean:,}", seconds_text(self.mean_category_s)),
            (
                f"index the largest, {self.largest:,}{assumed}",
                seconds_text(self.largest_category_s),
            ),
            ("index all", seconds_text(self.index_s)),
        ]

    def _slim(self, file: str) -> str:
        return bytes_text(self.files[file]) if file in SLIM_FILES else "none"

    def _notes(self) -> list[str]:
        machine = self.machine
        whose = "the reference machine's"
        if machine.measured:
            whose = f"measured now; other work takes {machine.slower:.2g} of the reference's time"
        return [
            "Estimates. Sizes are exact but for the trees in index.ann. Times are for "
            f"{machine.cores} cores of {machine.gflops:.0f} GFLOP/s",
            f"({whose}) and move with:",
            "- the largest category: its time grows with its square; give --largest-category",
            "- a machine that is busy or shares its cores; memory below that of the largest category",
            "- photos: decoding large ones and downloading all is not in it; give --photos-per-second",
            "- requests: measured on the reference machine, counted by cores, not by this one's speed",
        ]


def _both(name: str, amount: str = "") -> tuple[str, str, str]:
    """A row with the same amount for a full and a slim copy."""
    return name, amount, amount


def plan(
    catalogue: Catalogue,
    shape: Shape,
    machine: Machine,
    photos_per_s: float | None = None,
    requests_per_s: float | None = None,
) -> Plan:
    """The plan for a catalogue; `photos_per_s`, if it is known, takes the place of the estimate."""
    categories = catalogue.sizes()
    largest, mean = max(categories), round(catalogue.products / catalogue.categories)
    files = release_sizes(categories, shape)
    release, slim = sum(files.values()), slim_bytes(files)
    kept = 1 + catalogue.keep * catalogue.changed
    row = 4 * shape.n_dims
    photos = photos_per_s or photos_s(machine)
    requests = measured.REQUESTS * machine.cores
    return Plan(
        catalogue=catalogue,
        shape=shape,
        machine=machine,
        files=files,
        largest=largest,
        mean=mean,
        release_bytes=release,
        slim_bytes=slim,
        disk_bytes=round(release * kept) + largest * row,
        slim_disk_bytes=round(slim * kept),
        store_bytes=round(catalogue.products * (row + measured.STORE_BYTES)),
        photos_bytes=catalogue.products * catalogue.photo_bytes,
        hot_bytes=sum(files[name] for name in HOT_FILES),
        vector_bytes=files[INDEX],
        process_bytes=round(
            measured.PROCESS_BYTES + measured.PROCESS_BYTES_PRODUCT * catalogue.products
        ),
        # Candidates' scores and positions, then items and distances; features and a copy are in files.
        index_memory_bytes=round(measured.INDEX_BYTES)
        + largest * 8 * (2 * shape.neighbours + EXTRA_SCORES + N_SPARE),
        index_cache_bytes=2 * largest * row,
        extract_memory_bytes=round(measured.EXTRACT_BYTES),
        photos_s=photos,
        extract_s=catalogue.products / photos,
        mean_category_s=category_s(mean, shape, machine),
        largest_category_s=category_s(largest, shape, machine),
        index_s=index_s(categories, shape, machine),
        requests_s=requests,
        vectors_s=measured.VECTORS * machine.cores,
        serving_cores=None if requests_per_s is None else ceil(requests_per_s / measured.REQUESTS),
    )
