"""An engine bundle, opened to score."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_trt.calibrate.calibration import read_calibration
from cxr_trt.closing import Closing
from cxr_trt.engine.backend import Outputs, Pending, concat_outputs
from cxr_trt.errors import BundleError, UsageError
from cxr_trt.images.files import find_files
from cxr_trt.images.preprocess import preprocess
from cxr_trt.model.settings import CAUTIONS
from cxr_trt.score.pipeline import score_files
from cxr_trt.score.scores import Scores


class Engine(Closing):
    """An open engine bundle. Use it as a context manager, from one thread at a time.

    Attributes:
        manifest: what it was built from, and how.
        spec: the specification of its scoring graph.
        fingerprint: identifies engine and specification; written into every row.
        calibration: what `cxr-trt calibrate` fitted for the engine, or None; rows hold the network's own probabilities
            in either case.
        has_class_maps: whether the engine gives class maps.
        max_batch: the most images that go through the engine at once.
        in_flight: how many batches may be submitted before the first is collected.
        warnings: sentences for every row, such as that the model is only a demonstration.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a bundle after checking every file of it.

        Raises:
            BundleError: the bundle or its calibration is incomplete or changed, or it was built with another version of
                its backend or for another GPU.
            BackendError: its backend cannot run here.
        """
        from cxr_trt.engine.manifest import read_manifest  # here: these take long, and meanwhile decoders start
        from cxr_trt.engine.registry import BACKENDS

        path = Path(path)
        self.manifest = read_manifest(path)
        self.spec = self.manifest.graph.spec
        self.fingerprint = self.manifest.fingerprint
        self.calibration = read_calibration(path, self.fingerprint, self.spec.findings)
        self.warnings = CAUTIONS[self.manifest.graph.weights]
        backend = BACKENDS.get(self.manifest.backend)
        if backend is None:
            raise BundleError(f"{path}: made for the unknown backend {self.manifest.backend!r}; update cxr-trt")
        if reason := backend.why_not_run():
            raise BundleError(f"{path}: {reason}")
        here = backend.version()
        if reason := backend.why_not_open(self.manifest.settings):
            raise BundleError(f"{path}: {reason}; rebuild it: `cxr-trt build-engine {path} -o NEW.cxr`")
        if not self.manifest.runs_with(here):
            raise BundleError(
                f"{path}: built with {backend.name} {self.manifest.backend_version}, but {here} is installed; "
                f"rebuild it: `cxr-trt build-engine {path} -o NEW.cxr --backend {backend.name}`"
            )
        self._runner = backend.open(path, self.spec, self.manifest.settings)
        self.max_batch, self.in_flight = self._runner.max_batch, self._runner.in_flight
        self.has_class_maps = self._runner.has_class_maps

    def score(self, paths: str | Path | Iterable[str | Path]) -> Scores:
        """Score files, and folders with everything below them: a row per file, in the order of their names.

        Nothing is computed before the rows are asked for, one after the other or all at once by `to_pandas`.

        For class maps, pictures and rows of earlier runs see `cxr_trt.score.pipeline.score_files`.

        Raises:
            UsageError: a path does not exist, or there is nothing to score.
            BackendError: the engine failed twice on the same images, or no decoding process can be started.
        """
        results = score_files(self, find_files(paths).sources)
        rows = (result.row for result in results if not result.skipped)
        return Scores(rows, self.spec.findings)

    def run(self, images: npt.NDArray[np.uint8], *, class_maps: bool = False) -> Outputs:
        """Score preprocessed images.

        Args:
            images: uint8 [N, 1, height, width] or [N, height, width], any N.
            class_maps: whether to return class maps too.

        Raises:
            UsageError: the images have another type or shape, or the engine gives no class maps.
            BackendError: the engine failed.
        """
        height, width = self.spec.image_size
        if images.dtype != np.uint8 or not len(images) or images.shape[1:] not in ((1, height, width), (height, width)):
            raise UsageError(
                f"images are {images.dtype} {list(images.shape)}, not uint8 [N, 1, {height}, {width}]; "
                "engine.preprocess makes them"
            )
        pictures = list(images.reshape(-1, height, width))
        batches = [pictures[i : i + self.max_batch] for i in range(0, len(pictures), self.max_batch)]
        return concat_outputs([self.submit(batch, class_maps)() for batch in batches])

    def preprocess(self, array: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Make the image that this engine's network sees of display grey: in its size, the whole or the central square.

        Args:
            array: [H, W], 0 black to 255 white.

        Returns:
            uint8 [1, height, width]; several of them, concatenated, are what `run` takes.

        Raises:
            UsageError: the array has another shape, no pixels, or values that are not finite.
        """
        pixels = np.asarray(array, np.float32)
        if pixels.ndim != 2 or not pixels.size:
            raise UsageError(f"the array has the shape {list(pixels.shape)}, not [H, W]; give one grey image")
        if not np.isfinite(pixels).all():
            raise UsageError("the array has values that are not finite; give display grey, 0 to 255")
        return preprocess(pixels, self.spec.image_size, self.spec.fit)[None]

    def submit(self, images: Sequence[npt.NDArray[np.uint8]], class_maps: bool) -> Pending:
        """Start to score a batch of 1 to `max_batch` images, uint8 [height, width].

        At most `in_flight` batches may be in flight. Call the returned function once; it waits for the outputs.

        Raises:
            UsageError: the engine gives no class maps.
            BackendError: the images do not fit the engine, or it failed.
        """
        if class_maps and not self.has_class_maps:
            raise UsageError("the engine gives no class maps; its network has none, or was exported without them")
        return self._runner.submit(images, class_maps)

    def prepare(self, images: int) -> None:
        """Do now what the engine would otherwise do at the first batch, given how many images there are to score.

        Raises:
            BackendError: see `submit`.
        """
        from cxr_trt.engine.cpu.streams import StreamRunner

        if isinstance(self._runner, StreamRunner):
            self._runner.prepare(min(images, self.max_batch))

    def close(self) -> None:
        self._runner.close()
