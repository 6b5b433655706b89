"""What the shell calls as `sizewise`: the command line, or one sentence where a part of it was not installed.

`pip install sizewise` brings the embeddings alone (`sizewise.embedding`); studies, the dashboard and with them the
command line come with the extras `study`, `dashboard` and `all`.
"""

import sys
from importlib.util import find_spec


def main() -> None:
    """The `sizewise` command; exit code 2 where a library of an extra is missing, 130 after Ctrl+C while it loads."""
    try:
        from sizewise.cli import main as run

        run()
    except KeyboardInterrupt:
        print("sizewise: interrupted", file=sys.stderr)
        sys.exit(130)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if not library or find_spec(library) is not None:
            raise  # a fault of ours, or of a library that is there

        print(
            f"sizewise: this command needs {library}, which is not installed: pip install 'sizewise[all]'",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
