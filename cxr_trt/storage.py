"""Object storage: places such as s3://bucket/xrays, read and written through pyarrow's file systems.

Credentials, region and endpoint come from where the store's own tools look for them: environment, configuration file,
role of the machine. A `Url` has the few properties of a `Path` that commands use, so that they need not care which.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar

from cxr_trt.errors import StorageError, UsageError
from cxr_trt.outputs import replacing

if TYPE_CHECKING:
    import pyarrow.fs

SCHEMES = ("s3", "gs", "abfss")
ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gs": ("CLOUD_STORAGE_EMULATOR_ENDPOINT",),
    "abfss": ("AZURE_STORAGE_SERVICE_ENDPOINT",),
}
"""The environment variables in which the stores' own tools find another server than the store's."""
WAITS = (0.5, 2.0, 8.0)  # seconds before the second try, the third and the last
CONNECT_SECONDS, REQUEST_SECONDS = 10, 60
RETRY_SECONDS = 3  # in which Google's library tries again by itself
FINAL_ERRORS = (
    *("ACCESS_DENIED", "NO_SUCH_BUCKET", "InvalidAccessKeyId", "SignatureDoesNotMatch"),  # of S3
    *("PERMISSION_DENIED", "UNAUTHENTICATED"),  # of Google Cloud Storage
    *("AuthenticationFailed", "AuthorizationFailure", "AuthorizationPermissionMismatch"),  # of Azure
)
BLOCK_BYTES = 8 << 20

Answer = TypeVar("Answer")


@dataclass(frozen=True, order=True)
class Url:
    """A place in object storage: a bucket, an object, or a prefix that ends where a folder's name would.

    scheme: one of SCHEMES. path: bucket and key, not quoted, no slash at the end; for Azure container@account and key.
    """

    scheme: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def __truediv__(self, name: str) -> "Url":
        return Url(self.scheme, f"{self.path}/{name}")

    @property
    def bucket(self) -> "Url":
        return Url(self.scheme, self.path.split("/", 1)[0])

    @property
    def parent(self) -> "Url":
        return Url(self.scheme, self.path.rpartition("/")[0] or self.path)

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.path).suffix

    def exists(self) -> bool:
        """Whether there is an object, or one whose name starts so and goes on with a slash."""
        from pyarrow.fs import FileType

        return bool(_patiently(self, "looked up", lambda fs, path: fs.get_file_info(path)).type != FileType.NotFound)

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        return bool(_patiently(self, "looked up", lambda fs, path: fs.get_file_info(path)).is_file)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        if not missing_ok or self.is_file():
            _patiently(self, "removed", lambda fs, path: fs.delete_file(path))

    def read(self, most: int | None = None) -> bytes:
        """The object's content, or its first `most` bytes.

        Raises:
            FileNotFoundError: there is no such object.
            StorageError: it cannot be read, however often it is tried.
        """

        def content(fs: "pyarrow.fs.FileSystem", path: str) -> bytes:
            with fs.open_input_file(path) as stream:
                wanted = stream.size() if most is None else min(most, stream.size())
                data: bytes = stream.read(wanted)
                if len(data) != wanted:
                    raise OSError(f"{len(data)} of {wanted} bytes came")
                return data

        return _patiently(self, "read", content)


Location = Path | Url


class Listed(NamedTuple):
    """An object below a prefix: its place, and its size in bytes."""

    url: Url
    size: int


def parse_location(text: str) -> Location:
    """A path, or a place in object storage. Raises UsageError for a URL that is none."""
    scheme, separator, path = text.partition("://")
    if not separator:
        return Path(text)
    if scheme not in SCHEMES:
        raise UsageError(f"{text}: not one of the stores {', '.join(f'{known}://' for known in SCHEMES)}")
    bucket, _, key = path.strip("/").partition("/")
    if ":" in bucket or ("@" in bucket) != (scheme == "abfss"):
        form = "abfss://container@account.dfs.core.windows.net/..." if scheme == "abfss" else f"{scheme}://bucket/..."
        raise UsageError(
            f"{scheme}://{bucket.rpartition('@')[2]}: write {form}, and give credentials by the environment"
        )
    if not bucket:
        raise UsageError(f"{text}: name a bucket, as in {scheme}://bucket/xrays")
    return Url(scheme, f"{bucket}/{key}" if key else bucket)


def listed(prefix: Url) -> list[Listed]:
    """All objects below a prefix, however deep; without markers of folders, which end in a slash.

    Raises:
        UsageError: there is no such bucket.
        StorageError: the store does not answer.
    """
    from pyarrow.fs import FileSelector

    def find(fs: "pyarrow.fs.FileSystem", path: str) -> list[Listed]:
        infos = fs.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
        start = len(path) + 1
        return [Listed(prefix / info.path[start:], info.size) for info in infos if info.is_file]

    return _patiently(prefix, "listed", find)


def names_in(folder: Location) -> set[str]:
    """The names of the files in a folder, not below it; empty if there is no such folder."""
    if isinstance(folder, Path):
        return {entry.name for entry in os.scandir(folder) if entry.is_file()} if folder.is_dir() else set()
    from pyarrow.fs import FileSelector

    selector = FileSelector(_place(folder)[1], allow_not_found=True)
    infos = _patiently(folder, "listed", lambda fs, path: fs.get_file_info(selector))
    return {info.base_name for info in infos if info.is_file}


def opened(location: Location) -> Any:
    """A file to read from any position, as pyarrow takes it; a context manager. Raises OSError or StorageError."""
    import pyarrow

    if isinstance(location, Path):
        return pyarrow.OSFile(str(location), "r")
    return _patiently(location, "read", lambda fs, path: fs.open_input_file(path))


def content_of(location: Location) -> Path | BinaryIO:
    """The path of a small file, or the content of an object. Raises FileNotFoundError or StorageError."""
    return location if isinstance(location, Path) else BytesIO(location.read())


def retried(location: Location, action: Callable[[], Answer]) -> Answer:
    """Read from an open file, from object storage several times if need be. Raises OSError or StorageError."""
    return action() if isinstance(location, Path) else _patiently(location, "read", lambda fs, path: action())


def writing(location: Location, partial: str | None = None) -> AbstractContextManager[Path]:
    """Yield a temporary path to write to; `location` then appears whole, or not at all if the body fails.

    Args:
        location: what to write.
        partial: the name of the temporary file beside a path, see `cxr_trt.outputs.replacing`.

    Raises:
        UsageError, StorageError: it cannot be written.
    """
    if isinstance(location, Path):
        return replacing(location, location.with_name(partial) if partial else None)
    return _uploading(location)


@contextmanager
def _uploading(url: Url) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cxr-trt-") as folder:
        partial = Path(folder, "partial")
        yield partial

        def upload(fs: "pyarrow.fs.FileSystem", path: str) -> None:
            with partial.open("rb") as source, fs.open_output_stream(path) as target:
                shutil.copyfileobj(source, target, BLOCK_BYTES)

        _patiently(url, "written", upload)


def check_writable(folder: Url) -> None:
    """Raise UsageError or StorageError unless an object can be written below the prefix."""
    probe = folder / f".cxr-trt-{os.getpid()}"
    with writing(probe) as partial:
        partial.write_bytes(b"")
    probe.unlink()


def check_bucket(url: Url) -> None:
    """Raise UsageError if the bucket does not exist, and StorageError if the store does not answer."""
    if not url.bucket.exists():
        raise UsageError(f"{url.bucket}: there is no such bucket")


def _patiently(url: Url, what: str, action: Callable[["pyarrow.fs.FileSystem", str], Answer]) -> Answer:
    """Do something with a store, several times if need be. Raises FileNotFoundError, UsageError or StorageError."""
    from pyarrow import ArrowException

    for wait in (*WAITS, None):
        try:
            return action(*_place(url))
        except FileNotFoundError:
            raise
        except (OSError, ArrowException) as error:
            failure = f"{url}: cannot be {what} ({_reason(error)})"
            if not isinstance(error, OSError) or any(final in str(error) for final in FINAL_ERRORS):
                raise StorageError(f"{failure}; check its name, and the credentials in the environment") from error
            if wait is None:
                raise StorageError(f"{failure}; the same command goes on when the store answers") from error
            time.sleep(wait)
    raise AssertionError  # the last try returns or raises


def _reason(error: Exception) -> str:
    """The end of pyarrow's long sentence, without what tells one request from another."""
    text = str(error).split("\n")[0].split("(Request ID")[0].split(" error_info=")[0]
    for start in ("AWS Error ", "with a last message of ", "Namespace support on "):
        text = text.rpartition(start)[2]
    return text.strip().rstrip(".;")


def _place(url: Url) -> tuple["pyarrow.fs.FileSystem", str]:
    """The file system, and the path in it."""
    import pyarrow as pa

    bucket, _, key = url.path.partition("/")
    container = bucket.split("@")[0]
    try:
        endpoint = next(filter(None, map(os.environ.get, ENDPOINTS[url.scheme])), None)
        fs = _filesystem(url.scheme, bucket, endpoint)
    except (pa.ArrowException, ValueError) as error:
        raise UsageError(f"{url.bucket}: cannot be reached ({error}); check the store's settings") from error
    return fs, f"{container}/{key}" if key else container


@lru_cache(maxsize=16)
def _filesystem(scheme: str, bucket: str, endpoint: str | None) -> "pyarrow.fs.FileSystem":
    from pyarrow import fs

    if scheme == "gs":  # whose library takes the address of an emulator from the environment by itself
        return fs.GcsFileSystem(anonymous=endpoint is not None, retry_time_limit=timedelta(seconds=RETRY_SECONDS))
    connection, _, host = (endpoint or "").rpartition("://")
    place: dict[str, Any] = {}
    if scheme == "abfss":
        place = {f"{api}_storage_authority": host.split("/")[0] for api in ("blob", "dfs") if host}
        place |= {f"{api}_storage_scheme": connection for api in ("blob", "dfs") if connection}
        key, token = os.environ.get("AZURE_STORAGE_KEY"), os.environ.get("AZURE_STORAGE_SAS_TOKEN")
        account = bucket.split("@")[1].split(".")[0]
        return fs.AzureFileSystem(account_name=account, account_key=key, sas_token=token, **place)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint:
        place = {"endpoint_override": host.rstrip("/"), "scheme": connection or "https"}
    else:
        region = region or fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        region=region,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=2),  # and then we do, more patiently
        connect_timeout=CONNECT_SECONDS,
        request_timeout=REQUEST_SECONDS,
        **place,
    )
