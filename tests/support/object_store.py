"""An object storage on loopback: moto's S3 server in a child process, and a proxy before it that can be cut off.

As a program, for another network namespace: `object_store.py PORT FOLDER PREFIX` starts one with the files of a folder,
says so, and takes commands from standard input: "count PREFIX", "cut_off" and "connect".
"""

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

SERVER = """
import json, sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

store, faults, requests = DomainDispatcherApplication(create_backend_app), sys.argv[2], [0]

def application(environ, start_response):
    with open(faults) as stream:
        wanted = json.load(stream)
    requests[0] += 1
    every, key = wanted.get("fail_every"), wanted.get("fail_key")
    if (every and requests[0] % every == 0) or (key and environ["PATH_INFO"].endswith(key)):
        start_response("503 Slow Down", [("Content-Type", "application/xml")])
        return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]
    return store(environ, start_response)

run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def store_environment(port: int) -> dict[str, str]:
    """What clients of a store need."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class ObjectStore:
    """port: where clients reach it, through the proxy. `fail(...)` makes it answer 503; `cut_off()` and `connect()`."""

    def __init__(self, port: int | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._faults = Path(self._folder.name, "faults.json")
        self.fail()
        self._inner, self.port = free_port(), port or free_port()
        command = [sys.executable, "-c", SERVER, str(self._inner), str(self._faults)]
        self._server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._inner)):
                break
            time.sleep(0.1)
        self._connections: list[socket.socket] = []
        self.connect()

    @property
    def environment(self) -> dict[str, str]:
        """What clients need."""
        return store_environment(self.port)

    def fail(self, every: int = 0, key: str = "") -> None:
        """Answer each so-manieth request, and those for a key that ends so, with 503 Slow Down."""
        partial = self._faults.with_suffix(".partial")
        partial.write_text(json.dumps({"fail_every": every, "fail_key": key}))
        partial.replace(self._faults)

    def connect(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut_off(self) -> None:
        """Break all connections and refuse new ones."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self._inner)) as server:
            self._connections += [client, server]
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    (server if ready is client else client).sendall(data)

    def close(self) -> None:
        with suppress(OSError):
            self.cut_off()
        self._server.kill()
        self._server.wait()
        self._folder.cleanup()


@contextmanager
def object_store(port: int | None = None):
    """A store with the bucket `cxr`, and a pyarrow file system to look into it."""
    from pyarrow.fs import S3FileSystem

    with ExitStack() as stack:
        store = ObjectStore(port)
        stack.callback(store.close)
        files = S3FileSystem(
            access_key="test",
            secret_key="test",  # noqa: S106
            region="us-east-1",
            endpoint_override=f"127.0.0.1:{store.port}",
            scheme="http",
            allow_bucket_creation=True,
        )
        files.create_dir("cxr")
        yield store, files


def upload(files, folder: Path, prefix: str) -> None:
    """Copy a folder, with the markers that some tools leave for folders."""
    for path in sorted(folder.rglob("*")):
        name = f"{prefix}/{os.fsdecode(path.relative_to(folder))}"
        if path.is_dir():
            files.create_dir(name)
        else:
            with files.open_output_stream(name) as stream:
                stream.write(path.read_bytes())


def main(port: str, folder: str, prefix: str) -> None:
    from pyarrow.fs import FileSelector

    with object_store(int(port)) as (store, files):
        upload(files, Path(folder), prefix)
        print("ready", flush=True)
        for line in sys.stdin:
            command, *arguments = line.split()
            if command == "count":
                selector = FileSelector(arguments[0], recursive=True, allow_not_found=True)
                print(sum(info.is_file for info in files.get_file_info(selector)), flush=True)
            else:
                {"cut_off": store.cut_off, "connect": store.connect}[command]()
                print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
