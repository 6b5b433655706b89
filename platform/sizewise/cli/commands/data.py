"""Raw logs and shards: `generate`, `schema` and `prep`."""

import difflib
import shlex
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sizewise.cli.records import takes
from sizewise.cli.shared import Json, app, print_json
from sizewise_core.errors import InputError

if TYPE_CHECKING:
    from sizewise_prep.planted import Dials
    from sizewise_prep.shards.manifest import Manifest


class TokenTreatment(StrEnum):
    """What is done to tokens; see `sizewise_prep.pipeline.options`."""

    raw = "raw"
    contiguous = "contiguous"
    mlperf = "mlperf"


class LogFormat(StrEnum):
    """How planted logs are written."""

    text = "text"
    parquet = "parquet"


@dataclass(frozen=True)
class GenerateOptions:
    """The options of `generate`."""

    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the raw logs.")]
    rows: Annotated[int, typer.Option(help="Rows in all.", min=1)]
    seed: Annotated[int, typer.Option(help="Equal seeds give equal bytes.", min=0)] = 1
    files: Annotated[int, typer.Option(help="Day files to spread the rows over.", min=1)] = 1
    gzip: Annotated[bool, typer.Option("--gzip", help="Compress the files.")] = False
    format: Annotated[LogFormat, typer.Option(help="Text, or Parquet files.")] = LogFormat.text
    crosses: Annotated[
        int, typer.Option(help="Pairs of token columns whose combination has an effect of its own.", min=0)
    ] = 0
    numbers: Annotated[int, typer.Option(help="Real-valued columns.", min=0)] = 0
    lists: Annotated[int, typer.Option(help="Columns whose value is a list of tokens.", min=0)] = 0
    users: Annotated[
        int,
        typer.Option(
            help="Users who come back, each with interests: adds user, item, history (the last items) and time.",
            min=0,
        ),
    ] = 0
    dial: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Any dial of docs/planted.md, such as zipf=1.2; repeatable."),
    ] = None
    as_json: Json = False


@app.command()
@takes(GenerateOptions)
def generate(asked: GenerateOptions) -> None:
    """Write click logs whose best possible AUC is known.

    They are in Criteo's raw layout unless columns are added.
    """
    from sizewise.cli.output.terminal import rows_written
    from sizewise_prep import planted

    options = planted.LogOptions(
        seed=asked.seed,
        files=asked.files,
        compress=asked.gzip,
        dials=_dials(asked),
        format=asked.format.value,
    )
    with rows_written(asked.rows, asked.as_json) as progress:
        truth = planted.generate(asked.out, asked.rows, options, progress=progress)
    schema = asked.out / planted.SCHEMA
    found: dict[str, object] = {"bayes_auc": truth.bayes_auc, "bayes_logloss": truth.bayes_logloss}
    if schema.exists():
        found |= {"schema": str(schema)}
    if truth.added:
        found |= {"bayes_auc_without": truth.added.auc_without}
    if asked.as_json:
        print_json({"out": str(asked.out), "rows": asked.rows, **found})
        return
    print(f"{asked.out}: {asked.rows:,} rows; the best possible AUC on them is {truth.bayes_auc:.4f}")
    for effect, auc in truth.added.auc_without.items() if truth.added else ():
        print(f"  {auc:.4f} for a model that does not see the effect of {effect}")
    if schema.exists():
        print(f"  sizewise prep '{asked.out}/day_*' --schema {schema} --out SHARDS")


def _dials(asked: GenerateOptions) -> "Dials":
    """The dials of options and of `--dial`. Raises InputError where one is unknown, impossible or set twice."""
    from pydantic import ValidationError

    from sizewise_core.errors import first_problem
    from sizewise_prep.planted import Dials

    options = {name: getattr(asked, name) for name in ("crosses", "numbers", "lists", "users")}
    set_to: dict[str, int | str] = {name: value for name, value in options.items() if value}
    for text in asked.dial or ():
        name, equals, value = text.partition("=")
        if not equals or name not in Dials.model_fields:
            near = difflib.get_close_matches(name, Dials.model_fields, 1)
            maybe = f" (did you mean {near[0]}?)" if near and near[0] != name else ""
            raise InputError(f"--dial {text:.40}: write NAME=VALUE by a name of docs/planted.md{maybe}")
        if name in set_to:
            raise InputError(f"--dial {text:.40}: {name} is set already; set it once")
        set_to[name] = value
    try:
        return Dials.model_validate(set_to)
    except ValidationError as error:
        raise InputError(f"generate: {first_problem(error)}") from None


@app.command()
def schema(
    raw: Annotated[
        list[str], typer.Argument(metavar="RAW...", help="Raw logs of any format, as for `prep`.")
    ],
    out: Annotated[Path | None, typer.Option(metavar="YAML", help="Write it to this new file.")] = None,
    as_json: Json = False,
) -> None:
    """Propose a schema file for logs in your own layout.

    From a look at their first rows. Logs in Criteo's layout need none.
    """
    from dataclasses import asdict

    from sizewise_prep.raw.proposing import propose

    if out is not None and out.exists():
        raise InputError(f"{out}: is there already; name a new file")
    found = propose(raw)
    if out is not None and found.text:
        try:
            out.write_text(found.text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror}); name another file") from None
    if as_json:
        columns = [asdict(column) for column in found.columns]
        print_json({"schema": found.text, "rows": found.rows, "columns": columns, "unsure": found.unsure})
    elif not found.text:
        print("These logs are in Criteo's layout: `prep` reads them without a schema file.")
    elif out is None:
        print(found.text, end="")
    else:
        unsure = len(found.unsure)
        print(f"{out}: a proposal from {found.rows:,} rows, unsure of {unsure}; look it over, then")
        print(f"  {shlex.join(['sizewise', 'prep', *raw, '--schema', str(out), '--out', 'SHARDS'])}")


@dataclass(frozen=True)
class PrepOptions:
    """The options of `prep`."""

    raw: Annotated[list[str] | None, typer.Argument(metavar="RAW...", help="Raw logs, in time order.")] = None
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder for the shards, or the URI of one (s3://...).")
    ] = None
    max_bad_fraction: Annotated[
        float,
        typer.Option(help="Set bad rows aside up to this fraction; 0 stops at the first.", min=0, max=1),
    ] = 0.0
    shard_rows: Annotated[int, typer.Option(help="Rows a shard.", min=1)] = 524_288
    split: Annotated[
        str,
        typer.Option(
            help="Where the log is cut in time: fractions for training, validation and test; or rows:A,B, "
            "files:A,B (the rest tests); mlperf (the last file halved); time:DATE,DATE (where validation and test "
            "begin); column:NAME (which says train, validation or test); or key:NAME (each of its values in one split)."
        ),
    ] = "0.8,0.1,0.1"
    sort: Annotated[
        bool, typer.Option("--sort", help="Put rows in the order of the schema file's time column first.")
    ] = False
    tokens: Annotated[
        TokenTreatment,
        typer.Option(
            help="Raw 32-bit tokens; ids from 0 on (which `full` needs); or MLPerf's ids modulo 40,000,000 and "
            "logarithms of integers."
        ),
    ] = TokenTreatment.raw
    min_count: Annotated[
        int, typer.Option(help="With contiguous ids: rarer tokens share id 0 with missing ones.", min=1)
    ] = 1
    shuffle: Annotated[
        int | None, typer.Option(metavar="SEED", help="Shuffle rows within each shard by this seed.", min=0)
    ] = None
    schema: Annotated[
        Path | None, typer.Option(metavar="YAML", help="The columns of logs in another layout than Criteo's.")
    ] = None
    max_list: Annotated[
        int | None,
        typer.Option(
            help="Of longer lists (columns of kind `tokens`) keep so many values, the last ones.", min=1
        ),
    ] = None
    format: Annotated[
        str | None,
        typer.Option(
            help="NumPy arrays: torchrec (day_0_labels.npy, ...) or dlrm (..._processed.npz); libsvm or libffm."
        ),
    ] = None
    workers: Annotated[
        int | None, typer.Option(help="Local processes; one for each core when left out.", min=1)
    ] = None
    memory: Annotated[
        str | None,
        typer.Option(help="At most this much for all local workers, or for each task on Ray, such as 2GB."),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            envvar="RAY_ADDRESS",
            help="Work on this Ray cluster (auto: one on this machine).",
        ),
    ] = None
    verify: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Check a folder of shards, or the URI of one, against its manifest instead."
        ),
    ] = None
    as_json: Json = False


@app.command()
@takes(PrepOptions)
def prep(asked: PrepOptions) -> None:
    """Turn raw click logs into training shards.

    With --verify, check the shards of a folder instead.
    """
    if asked.verify is not None:
        _verify(asked.verify, asked.as_json)
        return
    if not asked.raw or asked.out is None:
        raise InputError("prep: give raw logs and --out DIR, or --verify DIR")
    from sizewise_prep.shards.cautions import cautions

    began = time.monotonic()
    try:
        manifest = _prepare(asked.raw, asked.out, asked)
    except KeyboardInterrupt:
        print("sizewise: interrupted; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(130)
    seconds = time.monotonic() - began
    warnings = cautions(manifest)
    for warning in warnings:
        print(f"sizewise: {asked.out}: {warning}", file=sys.stderr)
    shards = sum(len(part.shards) for part in manifest.splits.values())
    if asked.as_json:
        print_json(
            {
                "out": str(asked.out),
                "rows_in": manifest.rows_in,
                "rows_out": manifest.rows_out,
                "rows_quarantined": manifest.rows_quarantined,
                "shards": shards,
                "seconds": round(seconds, 3),
                "warnings": warnings,
            }
        )
    else:
        bad = manifest.rows_quarantined
        aside = f", {bad:,} set aside in quarantine/" if bad else ""
        print(f"{asked.out}: {manifest.rows_out:,} rows in {shards} shards{aside}")


def _verify(folder: str, as_json: bool) -> None:
    """Check a folder of shards against its manifest; exit code 1 where something is damaged."""
    from sizewise_prep.shards.verifying import verify

    damaged = verify(folder)
    if as_json:
        print_json({"folder": str(folder), "damaged": damaged})
    else:
        print("\n".join(damaged) or f"{folder}: every shard is as its manifest says")
    if damaged:
        raise typer.Exit(1)


def _prepare(raw: list[str], out: str, asked: PrepOptions) -> "Manifest":
    """Prepare on this machine or on a Ray cluster, and show the progress."""
    from sizewise.cli.output.terminal import preparing
    from sizewise_core.units import parse_bytes
    from sizewise_prep.pipeline import prep as preparation
    from sizewise_prep.raw.layout import Layout

    options = preparation.Options(
        split=asked.split,
        shard_rows=asked.shard_rows,
        max_bad_fraction=asked.max_bad_fraction,
        tokens=asked.tokens.value,
        min_count=asked.min_count,
        shuffle=asked.shuffle,
        sort=asked.sort,
        format=asked.format,
        layout=Layout.load(asked.schema) if asked.schema else None,
        max_list=asked.max_list,
    )
    try:
        memory = None if asked.memory is None else parse_bytes(asked.memory)
    except ValueError as error:
        raise InputError(f"--memory: {error}") from None
    with preparing(asked.as_json) as progress:
        if asked.ray is None:
            workers = asked.workers or preparation.default_workers()
            return preparation.prepare(raw, out, options, workers=workers, memory=memory, progress=progress)
        from sizewise_prep.pipeline.on_ray import prepare_on_ray

        return prepare_on_ray(raw, out, options, address=asked.ray, memory=memory, progress=progress)
