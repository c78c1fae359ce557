"""What runs on the nodes of a Ray cluster."""

import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import ray

from cxr_trt.cluster.bundles import BundleFiles, open_cached
from cxr_trt.cluster.listing import FileList
from cxr_trt.cluster.scoring import ScoredFile, ScoredShard, ShardDecoder, ShardScorer
from cxr_trt.errors import BackendError, BundleError, CxrTrtError, UsageError
from cxr_trt.images.decoders import Answer
from cxr_trt.score.engine import Engine
from cxr_trt.spec import Specification
from cxr_trt.storage import Location

FATAL_SIGNALS = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)


class SentBundle(NamedTuple):
    """A bundle on its way to actors. files: in a list, so that Ray does not fetch them unless they are asked for."""

    name: str
    key: str
    files: "list[ray.ObjectRef[BundleFiles]]"

    def open(self) -> Engine:
        return open_cached(self.key, self.name, lambda: ray.get(self.files[0]))


class SentList(NamedTuple):
    """A list that nodes read from where it is: its folder and its hash."""

    folder: Location
    sha256: str

    def open(self) -> FileList:
        """Raises UsageError if another list is there than on the machine of the command, or none."""
        files = FileList.open(self.folder)
        if files.sha256 != self.sha256:
            raise UsageError(f"{self.folder}: another list is there than on the machine of the command")
        return files


class ShardActor:
    """Opens an engine, and scores what it is told."""

    def open(self, bundles: Sequence[SentBundle], files: SentList, folder: Location, workers: int) -> str:
        """Open the list, and the first engine that can be opened here.

        Returns:
            The fingerprint of the engine.

        Raises:
            CxrTrtError: one of them is not what it should be; the sentence names the node.
        """
        _die_of_fatal_signals()
        with _named_node():
            engine = _first_that_opens(bundles)
            self._scorer = ShardScorer(engine, files.open(), folder, workers)
        return engine.fingerprint

    def score(self, shard: int) -> ScoredShard:
        return self._scorer.score(shard)

    def score_decoded(self, shard: int, answers: Sequence[Answer]) -> ScoredShard:
        return self._scorer.score_decoded(shard, answers)

    def score_file(self, shard: int, number: int) -> ScoredFile:
        return self._scorer.score_file(shard, number)

    def write(self, shard: int, scored: Sequence[ScoredFile]) -> ScoredShard:
        return self._scorer.write(shard, scored)


class DecodingActor:
    """Decodes what it is told, for actors with engines."""

    def open(self, files: SentList, spec: Specification, workers: int) -> None:
        """Open the list. Raises CxrTrtError if it is not what it should be; the sentence names the node."""
        _die_of_fatal_signals()
        with _named_node():
            self._decoder = ShardDecoder(files.open(), spec, workers)

    def decode(self, shard: int) -> tuple[None, list[Answer]]:
        """What the files of a shard are, beside nothing, which says that it is there and need not be fetched."""
        return None, self._decoder.decode(shard)


def _die_of_fatal_signals() -> None:
    """Let this process die when an engine crashes: Ray would first write where, and can fail at that for ever."""
    for number in FATAL_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def _named_node() -> Iterator[None]:
    """Put the name of this node before what is wrong on it."""
    try:
        yield
    except CxrTrtError as error:
        node = f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"
        raise type(error)(f"on node {node}: {error}") from error


def _first_that_opens(bundles: Sequence[SentBundle]) -> Engine:
    """Raises BundleError or BackendError, which says of each why not, if there is none."""
    reasons: list[BundleError | BackendError] = []
    for bundle in bundles:
        try:
            return bundle.open()
        except (BundleError, BackendError) as error:
            reasons.append(error)
    raise type(reasons[0])("; ".join(map(str, reasons)))
