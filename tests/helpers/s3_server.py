"""An S3 server on the loopback, a process of its own that speaks the real protocol to the real client; ports for it.

with S3Server() as server:
    server.bucket("studies")
    with server.in_environment(): ...      # where the client looks for its endpoint and credentials
"""

import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.error import HTTPError, URLError


def free_port() -> int:
    """A port of the loopback for a server that is about to be started.

    The kernel hands out none of these to programs that ask for any port, nor to connections, and Ray's workers have
    those below it, so it is still free when the server starts.
    """
    draw = random.SystemRandom()
    while True:
        port = draw.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class S3Server:
    """moto's server with S3 alone; `strict` has it check credentials, which nobody then has."""

    def __init__(self, strict: bool = False) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "AKIAOFTHESETESTS",
            "AWS_SECRET_ACCESS_KEY": "never-to-be-seen-anywhere",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | ({"INITIAL_NO_AUTH_ACTION_COUNT": "0"} if strict else {}),
        )
        end = time.monotonic() + 180
        while not self._answers():
            assert self._process.poll() is None, "the S3 server did not start"
            assert time.monotonic() < end, "the S3 server does not answer"
            time.sleep(0.1)

    def _answers(self) -> bool:
        with suppress(HTTPError, URLError, OSError):
            urllib.request.urlopen(f"{self.url}/moto-api/", timeout=30).close()
            return True
        return False

    def bucket(self, name: str) -> None:
        """Make a bucket."""
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region_name=self.environment["AWS_DEFAULT_REGION"],
        )
        client.create_bucket(Bucket=name)

    @contextmanager
    def in_environment(self) -> Iterator[None]:
        """This process's environment leads to the server."""
        before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value

    def stop(self) -> None:
        """The server goes away, and all that it held."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> "S3Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Door:
    """A way to a server that can be closed, as a network or a storage service goes away, and opened again."""

    def __init__(self, server: S3Server) -> None:
        self._server, self._open, self._ways = server, True, set[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._welcome, daemon=True).start()

    def close(self) -> None:
        """Nobody comes through, and who is inside is thrown out."""
        self._open = False
        for way in list(self._ways):
            _end(way)

    def open(self) -> None:
        """Everybody comes through."""
        self._open = True

    def _welcome(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._open:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._server.port))
            except OSError:  # the server itself is gone
                client.close()
                continue
            self._ways |= {client, server}
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for end in (source, target):
            self._ways.discard(end)
            _end(end)

    def __enter__(self) -> "Door":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._listener.close()


def _end(way: socket.socket) -> None:
    with suppress(OSError):
        way.shutdown(socket.SHUT_RDWR)
    way.close()
