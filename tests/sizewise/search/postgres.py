"""A PostgreSQL server of the test's own: an unprivileged process in a temporary folder, on a free port."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from s3_server import free_port

PROGRAMS = max(
    Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda path: int(path.parent.name)
)
PASSWORD = "correct-horse"


class PostgreSQL:
    """Started at once; `stop` and `start` as often as wanted; `close` leaves nothing."""

    def __init__(self) -> None:
        assert PROGRAMS is not None
        # PostgreSQL refuses to run as root; Debian's package brings a user for it.
        self._user = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        (self.folder / "password").write_text(PASSWORD)
        if self._user:
            for path in (self.folder, self.folder / "password"):
                shutil.chown(path, **self._user)
        self.port = free_port()
        self._data = self.folder / "data"
        initdb = [PROGRAMS / "initdb", "-D", self._data, "-U", "tester", "-A", "scram-sha-256", "-N"]
        self._run([*initdb, "--pwfile", self.folder / "password"])
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://tester:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k", self.folder]
        command = [PROGRAMS / "postgres", "-D", self._data, "-p", str(self.port), *settings]  # type: ignore[operator]
        log = (self.folder / "log").open("a")
        self._server = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **self._user
        )
        for _ in range(1_200):
            ready = [PROGRAMS / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port)]  # type: ignore[operator]
            if subprocess.run(ready, capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        self._server.send_signal(signal.SIGINT)  # ends its connections too
        self._server.wait(timeout=120)

    def close(self) -> None:
        if self._server.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)

    def _run(self, command: list[object]) -> None:
        subprocess.run(
            [str(part) for part in command], check=True, capture_output=True, cwd="/", **self._user
        )
