"""The manifest of an engine bundle: what the bundle contains, what built it, and the hashes of its files."""

import dataclasses
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

from cxr_trt.calibrate.calibration import CALIBRATION_FILE
from cxr_trt.errors import BundleError, CxrTrtError, GraphError
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph, load_self_contained
from cxr_trt.hashing import hash_fields, hash_file, to_hashed_json
from cxr_trt.model.settings import CAUTIONS
from cxr_trt.precision.plan import PRECISION_FILE, PrecisionPlan
from cxr_trt.spec import Specification

MANIFEST_FILE = "manifest.json"
GRAPH_FILE = "model.onnx"  # the scoring graph is in every bundle, so that each can be rebuilt on another machine
MAX_MANIFEST_BYTES = 1 << 20  # a typical manifest has about 2,000
MAX_BATCH = 4096
LATER_VERSIONS_SETTING = "version_compatible"  # in the settings of an engine that later versions of its backend run
MANIFEST_FORMAT = 3  # to be raised when fields change their meaning
READ_FORMATS = (2, 3)
CPU_SETTINGS = ("max_batch", "streams", "hyper_threading", "layout")  # the fields of a CPU engine's `CpuConfig`


@dataclass(frozen=True)
class Manifest:
    """Plain JSON values only. `files` maps every other file of the bundle to its sha256.

    The formats 2 and 3 differ in what the fingerprint counts.
    """

    graph: GraphInfo
    precision: str
    backend: str
    backend_version: str
    settings: Mapping[str, Any]
    files: Mapping[str, str]
    format: int = MANIFEST_FORMAT

    def to_json(self) -> str:
        """Human-readable JSON that ends with its own hash."""
        return to_hashed_json(self._fields())

    @property
    def fingerprint(self) -> str:
        """Identifies the engine and its specification: 16 hexadecimal digits of the hash of each.

        How a CPU is used does not count, nor what was measured while the engine was built: so the same engine built
        again has the same fingerprint, on a machine with more processors too. In format 2 only times did not count.
        """
        fields = self._fields()
        is_of_cpu = "streams" in self.settings
        left_out = ("tuning", "parity", *CPU_SETTINGS) if is_of_cpu and self.format > 2 else ("tuning",)
        settings = {name: value for name, value in self.settings.items() if name not in left_out}
        return f"{hash_fields({**fields, 'settings': settings})[:16]}-{self.graph.spec.sha256[:16]}"

    def runs_with(self, version: str) -> bool:
        """Whether this version of the backend runs the engine: the one that built it or, for some, any later one."""
        if self.settings.get(LATER_VERSIONS_SETTING) is True:
            return Version(version) >= Version(self.backend_version)
        return version == self.backend_version

    def describe(self) -> str:
        """Software, precision and views of the engine."""
        return f"{self.backend} {self.backend_version}, {self.precision}, {self.graph.spec.views}"

    def describe_model(self) -> str:
        """Software, precision and views of the engine, and which weights it has."""
        return f"{self.describe()}, {self.graph.weights} weights of checkpoint {self.graph.checkpoint_sha256[:16]}"

    def check_types(self) -> None:
        """Raise TypeError or ValueError for values that no backend should have to expect."""
        texts = (self.precision, self.backend, self.backend_version, self.graph.checkpoint_sha256)
        if not all(isinstance(text, str) for text in (*texts, *self.files, *self.files.values())):
            raise TypeError("not a text")
        if self.graph.weights not in CAUTIONS:
            raise TypeError("its kind of weights is unknown")
        for name in ("max_batch", "streams"):
            number = self.settings.get(name, 1)
            if type(number) is not int or not 1 <= number <= MAX_BATCH:
                raise ValueError(f"{name} is not between 1 and {MAX_BATCH}")
        if self.settings.get(LATER_VERSIONS_SETTING) is not None:
            Version(self.backend_version)
        if type(self.settings.get("hyper_threading", True)) is not bool:
            raise TypeError("hyper_threading is neither true nor false")

    def _fields(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        fields["graph"]["spec"] = self.graph.spec.to_mapping()
        return {**_derived(self.graph), "format": self.format, **fields}


def read_manifest(bundle: Path) -> Manifest:
    """Read the manifest of a bundle and check every file of the bundle against its hash.

    Raises:
        BundleError: it is not a bundle, or one of another format, incomplete or changed. The error names the file.
    """
    path = bundle / MANIFEST_FILE
    if bundle.is_file() and bundle.suffix == ".onnx":
        raise BundleError(
            f"{bundle}: a scoring graph, from which an engine must first be built: "
            f"`cxr-trt build-engine {bundle} -o {bundle.with_suffix('.cxr')}`"
        )
    if bundle.is_file():
        raise BundleError(f"{bundle}: a file, but an engine bundle is a folder made by build-engine; name that folder")
    if not bundle.is_dir():
        raise BundleError(
            f"{bundle}: no such bundle; build one: `cxr-trt build-engine MODEL -o {bundle.with_suffix('.cxr')}`"
        )
    if not path.is_file():
        raise BundleError(
            f"{bundle}: not an engine bundle (it has no {MANIFEST_FILE}); name a folder made by build-engine"
        )
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError("too large for a manifest")
        text = path.read_text()
        fields = json.loads(text)
        graph = fields.pop("graph")
        info = GraphInfo(Specification.from_mapping(graph.pop("spec")), **graph)
        for name in ("sha256", *_derived(info)):
            del fields[name]
        manifest = Manifest(info, **fields)
        manifest.check_types()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, CxrTrtError) as error:
        raise BundleError(f"{path}: damaged or from another version of cxr-trt; {_rebuild(bundle)}") from error
    if manifest.format not in READ_FORMATS:
        raise BundleError(
            f"{path}: has format {manifest.format}, but this version reads formats {READ_FORMATS[0]} to "
            f"{MANIFEST_FORMAT}; {_rebuild(bundle)}"
        )
    if text != manifest.to_json():
        raise BundleError(f"{path}: changed since the engine was built; {_rebuild(bundle)}")
    _check_files(bundle, manifest)
    return manifest


def _check_files(bundle: Path, manifest: Manifest) -> None:
    """Raise BundleError unless the bundle holds exactly the files of its manifest, unchanged.

    A calibration is not part of the engine; it carries its own hash (`cxr_trt.calibrate.calibration`).
    """
    for name in manifest.files:
        path = bundle / name
        if Path(name).name != name or not path.is_file():
            raise BundleError(f"{bundle}: {name} is missing; {_rebuild(bundle)}")
        if path.is_symlink():
            raise BundleError(f"{path}: is a link, and a bundle must not contain links; copy the file itself")
    with ThreadPoolExecutor() as threads:
        paths = [bundle / name for name in manifest.files]
        try:
            hashes = list(threads.map(hash_file, paths))
        except OSError as error:
            raise BundleError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions") from error
    for path, sha256, found in zip(paths, manifest.files.values(), hashes, strict=True):
        if found != sha256:
            raise BundleError(f"{path}: changed since the engine was built; {_rebuild(bundle)}")
    for path in sorted(bundle.iterdir()):
        if path.name not in (MANIFEST_FILE, CALIBRATION_FILE, *manifest.files):
            raise BundleError(f"{path}: is not in the manifest; remove it, or {_rebuild(bundle)}")
    try:
        model = load_self_contained(bundle / GRAPH_FILE)
    except GraphError as error:
        raise BundleError(str(error)) from error
    if manifest.precision == "int8":
        try:
            if PRECISION_FILE not in manifest.files:
                raise BundleError(f"{PRECISION_FILE} is missing")
            plan = PrecisionPlan.from_json((bundle / PRECISION_FILE).read_text())
            plan.check_weights(ScoringGraph(model, manifest.graph))
        except BundleError as error:
            raise BundleError(f"{bundle}: {error}; {_rebuild(bundle)}") from error


def _derived(graph: GraphInfo) -> dict[str, str]:
    """Values that stand at the top of the file for its reader."""
    return {"specification_sha256": graph.spec.sha256}


def _rebuild(bundle: Path) -> str:
    return f"build it again from its model: `cxr-trt build-engine MODEL -o {bundle} --overwrite`"
