"""Cases of max-min pooling and what they must give: NumPy in float64; NaN is the largest, as in torch.topk."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

KINDS = ("integers", "normal", "ties", "constant", "infinite", "nan", "subnormal", "wide", "zeros")
SHAPES = ((7, 7), (14, 14), (1, 1), (1, 7), (5, 13), (8, 16), (16, 16), (3, 11), (2, 130), (13, 31), (32, 32))


@dataclass(frozen=True)
class Case:
    """One call of the kernel.

    Attributes:
        maps: [n, c, h, w], float32 or float16.
        k_max: How many of the largest cells count.
        k_min: How many of the smallest cells count.
        alpha: Weight of the smallest.
        windows: (y, x, h, w) each; none means the whole map.
        kind: What the values are like.
        shift: Cells that stand before the maps in memory, from a 64-byte boundary.
        max_blocks: Largest grid.
        seed: Of the order in which threads run.
    """

    maps: np.ndarray
    k_max: int
    k_min: int
    alpha: float
    windows: tuple[tuple[int, int, int, int], ...] = ()
    kind: str = ""
    shift: int = 0
    max_blocks: int = 1 << 30
    seed: int = 0
    areas: tuple[int, ...] = field(init=False)

    def __post_init__(self):
        *_, h, w = self.maps.shape
        object.__setattr__(self, "areas", tuple(win[2] * win[3] for win in self.windows) or (h * w,))

    @property
    def scores_shape(self) -> tuple[int, int, int]:
        """(n, windows or 1, c)."""
        return self.maps.shape[0], len(self.areas), self.maps.shape[1]

    @property
    def keys_per_lane(self) -> int:
        """Which instance of the kernel the launcher takes."""
        return next(v for v in (8, 32, 128) if max(self.areas) <= 32 * v)

    def __str__(self):
        return (
            f"{self.kind} {self.maps.dtype}{self.maps.shape} k_max={self.k_max} k_min={self.k_min} alpha={self.alpha} "
            f"windows={self.windows} shift={self.shift} max_blocks={self.max_blocks} seed={self.seed}"
        )


def expected(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The scores in float64, and how far float32 sums in the kernel's order may be from them."""
    *_, h, w = case.maps.shape
    scores, magnitudes = np.zeros((2, *case.scores_shape))
    with np.errstate(invalid="ignore"):
        for i, (y, x, wh, ww) in enumerate(case.windows or ((0, 0, h, w),)):
            cells = case.maps[:, :, y : y + wh, x : x + ww].reshape(*case.maps.shape[:2], -1)
            cells = np.sort(cells.astype(np.float64), axis=-1)  # NaN last
            largest, smallest = cells[..., cells.shape[-1] - case.k_max :], cells[..., : case.k_min]
            scores[:, i] = largest.mean(-1)
            magnitudes[:, i] = np.abs(largest).mean(-1)
            if case.alpha != 0:
                alpha = np.float64(np.float32(case.alpha))
                scores[:, i] += alpha * smallest.mean(-1)
                magnitudes[:, i] += abs(alpha) * np.abs(smallest).mean(-1)
    # A lane adds V numbers one by one, five shuffles add the lanes, then ties, division and the other side.
    roundings = case.keys_per_lane + 5 + 3
    return scores, 2.0**-24 * roundings * magnitudes + 2.0**-148 * (1 + abs(case.alpha))


def difference(case: Case, scores: np.ndarray) -> str | None:
    """What is wrong with the scores of a case, if anything."""
    want, tolerance = expected(case)
    with np.errstate(invalid="ignore"):
        right = (np.abs(scores - want) <= tolerance) | (scores == want) | (np.isnan(scores) & np.isnan(want))
    if right.all():
        return None
    at = tuple(int(i) for i in np.argwhere(~right)[0])
    return f"{case}: scores{list(at)} is {scores[at]}, not {want[at]}"


def values(rng: np.random.Generator, kind: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Maps of a kind."""
    if kind == "integers":
        return rng.integers(-500, 500, shape).astype(dtype)
    if kind == "ties":
        return rng.integers(-2, 3, shape).astype(dtype)
    if kind == "constant":
        return np.full(shape, -3, dtype)
    if kind == "zeros":
        return rng.choice([0.0, -0.0], shape).astype(dtype)
    if kind == "subnormal":
        return (rng.integers(-900, 900, shape) * np.finfo(dtype).smallest_subnormal).astype(dtype)
    if kind == "wide":
        return (rng.choice([-1, 1], shape) * np.exp2(rng.uniform(-20, 15, shape))).astype(dtype)
    maps = rng.normal(0, 3, shape).astype(dtype)
    if kind == "infinite":
        maps[rng.random(shape) < 0.05] = np.inf
        maps[rng.random(shape) < 0.05] = -np.inf
    if kind == "nan":
        maps[rng.random(shape) < 0.05] = np.copysign(dtype(np.nan), dtype(-1))
        maps[rng.random(shape) < 0.02] = np.nan
        maps[0] = -np.abs(np.nan_to_num(maps[0]))
        maps[-1, -1] = np.nan
    return maps


def cases(seed: int, count: int, shapes: tuple[tuple[int, int], ...] = SHAPES, rows: int = 9) -> Iterator[Case]:
    """Random cases, the same for the same arguments; kinds, types and shapes take turns."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        h, w = shapes[i % len(shapes)]
        n = int(rng.integers(1, 4))
        c = int(rng.integers(1, max(rows // n, 1) + 1))
        kind = KINDS[(i + seed) % len(KINDS)]
        dtype = np.float32 if rng.random() < 0.5 else np.float16
        windows = []
        for _ in range(rng.integers(0, 4) if i % 2 else 0):
            y, x = int(rng.integers(h)), int(rng.integers(w))
            windows.append((y, x, int(rng.integers(1, h - y + 1)), int(rng.integers(1, w - x + 1))))
        cells = min((win[2] * win[3] for win in windows), default=h * w)
        k_max, k_min = (int(k) for k in rng.integers(1, cells + 1, 2))
        mode = rng.integers(5)
        if mode == 0:
            k_max = k_min = 1
        elif mode == 1:
            k_max = k_min = cells
        elif mode == 2:
            k_min = 1
        yield Case(
            values(rng, kind, (n, c, h, w), dtype),
            k_max,
            k_min,
            float(rng.choice([0.0, 0.7, 1.0, -0.25])),
            tuple(windows),
            kind,
            shift=int(rng.choice([0, 0, 1, 2, 4, 7])),
            max_blocks=int(rng.choice([1, 1 << 30])),
            seed=i,
        )
