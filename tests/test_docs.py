"""What the documents say works: commands parse, study files load, links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from sizewise import cli, config
from sizewise.embedding import build
from sizewise.models.dry_step import dry_step
from sizewise.store import code

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def lines_of(*suffixes: str) -> list[tuple[str, str]]:
    """(document, line) of all commands in the documents and in the headers of study files."""
    found = [
        (path.name, line)
        for path in DOCUMENTS
        for _, block in BLOCK.findall(path.read_text())
        for line in block.splitlines()
    ]
    found += [
        (path.name, line.lstrip("# "))
        for path in sorted((ROOT / "studies").glob("*.yaml"))
        for line in path.read_text().splitlines()
        if line.startswith("#   ")
    ]
    return [(name, line) for name, line in found if line.startswith(suffixes)]


@pytest.mark.parametrize(("document", "line"), lines_of("sizewise "))
def test_commands_are_ones_that_the_command_line_takes(document: str, line: str) -> None:
    _, name, *arguments = shlex.split(line, comments=True)
    command = typer.main.get_command(cli.app).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, arguments)  # parses, and runs nothing


@pytest.mark.parametrize(("document", "line"), lines_of("make "))
def test_make_targets_exist(document: str, line: str) -> None:
    target = shlex.split(line, comments=True)[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.name)
def test_study_files_load(path: Path) -> None:
    config.load(path)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_study_files_in_documents_load(path: Path, tmp_path: Path) -> None:
    for language, block in BLOCK.findall(path.read_text()):
        if language == "yaml" and block.startswith("name:"):
            (tmp_path / "study.yaml").write_text(block)
            config.load(tmp_path / "study.yaml")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


# Imports of what `pip install sizewise` does not bring; but for filelock and fsspec, which PyTorch itself needs.
_TABLES = ["moocore", "pandas", "plotly", "polars", "pyarrow", "safetensors"]
_PROGRAMS = ["click", "optuna", "psutil", "ray", "rich", "ruamel", "starlette", "streamlit", "typer", "upath"]
EXTRAS = [*_TABLES, *_PROGRAMS]


@pytest.mark.slow
def test_embeddings_are_a_library_that_needs_none_of_the_extras() -> None:
    """The document's programs run; and the import is a fraction of PyTorch's own, once kernels are compiled."""
    blocks = [
        block
        for language, block in BLOCK.findall((ROOT / "docs" / "your_own_model.md").read_text())
        if language == "python"
    ]
    assert len(blocks[0].splitlines()) <= 30
    program = (
        f"import sys\nsys.modules.update(dict.fromkeys({EXTRAS}))\n"
        + "import time, torch\n"
        + "start = time.process_time()\n"
        + "import sizewise.embedding\n"
        + "print(time.process_time() - start)\n"
        + "\n".join(blocks)
        + "assert loss.isfinite()\n"
        # What takes scikit-learn: means of narrow chunks.
        + "cce = build('cce', [3000], 16, 20_000, 1, cluster_every=1)\n"
        + "cce(torch.randint(0, 3000, (64, 1))).sum().backward()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout.split()[0]) < 1.5


def test_the_model_of_ones_own_in_the_document_takes_its_dry_step(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "your_own_model.md").read_text()
    blocks = BLOCK.findall(text)
    (module,) = [block for language, block in blocks if language == "python" and "class Gated" in block]
    (study,) = [block for language, block in blocks if language == "yaml" and "mynets:Gated" in block]
    (tmp_path / "mynets.py").write_text(module)
    (tmp_path / "study.yaml").write_text(study)
    spec = config.load(tmp_path / "study.yaml")
    code.search(tmp_path)
    for hidden in spec.model.options["hidden"].choices:
        embedding = build("robe", [9, 9], spec.model.dim, 1_000, 1)
        assert dry_step(str(spec.model.kind), embedding, 3, {"hidden": hidden}) == []


@pytest.mark.parametrize(
    ("missing", "command"), [("typer", "status"), ("streamlit", "dashboard"), ("polars", "results NAME")]
)
def test_commands_name_the_extra_that_was_not_installed(missing: str, command: str, tmp_path: Path) -> None:
    program = (
        f"import sys\nsys.modules[{missing!r}] = None\n"
        f"from sizewise.command import main\nsys.argv = {['sizewise', *command.split()]}\nmain()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=tmp_path,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1] == (
        f"sizewise: this command needs {missing}, which is not installed: pip install 'sizewise[all]'"
    )
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""
