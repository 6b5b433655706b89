"""Build the wheel and the source archive, and run the quickstart from each: `make release-check` (minutes).

Each is installed into a new environment that finds its dependencies in the running one, away from the repository, so
that a file which the build forgot is missed here and not by whoever installs the release.
"""

import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*command: object, cwd: Path) -> str:
    """A command's standard output; its standard error is passed through."""
    print("$", *command, flush=True)
    words = [str(part) for part in command]
    return subprocess.run(words, cwd=cwd, stdout=subprocess.PIPE, text=True, check=True).stdout


def built(archive: Path, folder: Path) -> Path:
    """The wheel itself, or the one that a source archive gives."""
    if archive.suffix == ".whl":
        return archive
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "wheel", *options, archive, cwd=folder.parent)
    (wheel,) = folder.glob("*.whl")
    return wheel


def environment(wheel: Path, folder: Path) -> Path:
    """The folder of programs of a new environment with the wheel in it."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=folder)
    # Behind the wheel's own packages on the path; not as a site folder, or the repository's .pth would count.
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def quickstart(programs: Path, folder: Path) -> None:
    """The quickstart's commands with fewer rows and trials."""
    folder.mkdir()
    sizewise = programs / "sizewise"
    found = run(programs / "python", "-c", "import sizewise; print(sizewise.__file__)", cwd=folder).strip()
    assert Path(found).is_relative_to(programs.parent), f"{found} is not of the archive"
    run(sizewise, "generate", "data/planted-raw", "--rows", 20_000, "--seed", 1, cwd=folder)
    run(sizewise, "prep", "data/planted-raw/day_0.tsv", "--out", "data/planted", cwd=folder)
    print(run(sizewise, "run", ROOT / "studies" / "quickstart.yaml", "--set", "trials=2", cwd=folder))
    run(sizewise, "report", "quickstart", "--out", "report.html", cwd=folder)
    assert (folder / "report.html").stat().st_size > 100_000


def main() -> None:
    """Build, install and run both archives."""
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ROOT, cwd=folder)
        for pattern in ("*.whl", "*.tar.gz"):
            (archive,) = (folder / "dist").glob(pattern)
            kind = pattern.rpartition(".")[2]
            wheel = built(archive, folder / f"wheel-{kind}")
            quickstart(environment(wheel, folder / f"environment-{kind}"), folder / f"run-{kind}")
            print(f"{archive.name}: {archive.stat().st_size:,} bytes, runs the quickstart")


if __name__ == "__main__":
    main()
