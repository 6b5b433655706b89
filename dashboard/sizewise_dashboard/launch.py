"""Start the dashboard: `serve(Path("runs"), port=8501)`.

The options that keep it private (bound to one address, no usage statistics) are set here and nowhere else.
"""

import re
import signal
import socket
import threading
import time
from importlib import import_module
from pathlib import Path

from click import Abort
from streamlit.web import cli

from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place, absolute
from sizewise_dashboard import streamlit_page

APP = Path(__file__).parent / "app.py"
_PAUSE = 5.0  # seconds before the other pages are loaded, so that a first visitor has the processor alone
SERVER = APP.with_name("server.py")


def serve(
    runs: Place, port: int, address: str = "127.0.0.1", base_path: str = "", read_only: bool = False
) -> int:
    """Serve the dashboard in this process, until Ctrl+C or SIGTERM.

    Args:
        runs: the folder of studies; it need not exist yet.
        port: to listen on.
        address: to listen on.
        base_path: below which a proxy serves it, such as "/sizewise"; empty: none.
        read_only: whether stars, tags and notes can only be read.

    Returns:
        The exit code.

    Raises:
        InputError: the base path is none, the port is taken, or the dashboard does not know the installed Streamlit.
    """
    base = _checked(base_path)
    _check_free(port, address)
    streamlit_page.page("")
    # After it has ended, Streamlit's server sends this process the signal that ended it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_warm, args=(runs,), daemon=True).start()
    try:
        # The command line is Streamlit's public interface. A child process would remain when this one is killed.
        cli.main(
            [*arguments(runs, port, address, base), *(["--read-only"] if read_only else [])],
            prog_name="streamlit",
            standalone_mode=False,
        )
    except (KeyboardInterrupt, Abort):
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def arguments(runs: Place, port: int, address: str, base: str = "") -> list[str]:
    """The arguments by which Streamlit runs this package's app.

    Args:
        runs: the folder of studies.
        port: to listen on.
        address: to listen on.
        base: the path below which it is served, without slashes at its ends.
    """
    # With the server's address, Streamlit does not ask a host on the Internet for it. Headless, it opens no browser and
    # asks for no e-mail address. An installed package does not change, so no files are watched.
    options = {
        "server.port": port,
        "server.address": address,
        **({"server.baseUrlPath": base} if base else {}),
        "browser.serverAddress": "localhost" if address in ("0.0.0.0", "::") else address,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
    }
    settings = [f"--{name}={value}" for name, value in options.items()]
    return ["run", str(SERVER), *settings, "--", str(absolute(runs))]


def _warm(runs: Place) -> None:
    """Do what the first visitor would wait for: load the libraries, read and draw the study that changed last."""
    from sizewise import results
    from sizewise_dashboard import snapshots
    from sizewise_dashboard.content import decide

    try:
        for name in results.studies(runs)["name"].head(1):
            decide.prepare(snapshots.read(runs, name))
    except (InputError, OSError):
        pass  # the page shows it
    time.sleep(_PAUSE)
    for page in ("studies", "trials", "explore", "compare", "data"):
        import_module(f"sizewise_dashboard.content.{page}")


def _checked(base_path: str) -> str:
    """The base path without slashes at its ends. Raises InputError for one that no address could have."""
    base = base_path.strip("/")
    if base and not re.fullmatch(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*", base):
        raise InputError(
            f"--base-path {base_path!r}: write it like /sizewise, of letters, digits and - . _ ~ between slashes"
        )
    return base


def _check_free(port: int, address: str) -> None:
    """Raise InputError for a port that is taken, which Streamlit would report in its log only."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"cannot listen on {address} port {port} ({error}); "
                "--port takes another number from 1024 to 65535"
            ) from None
