"""Raw logs and shards: `generate` and `prep`."""

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sizewise.cli.shared import Json, app, print_json
from sizewise_core.errors import InputError


class TokenTreatment(StrEnum):
    """What the ids of shards are."""

    raw = "raw"
    contiguous = "contiguous"
    mlperf = "mlperf"


@app.command()
def generate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the raw logs.")],
    rows: Annotated[int, typer.Option(help="Rows in all.", min=1)],
    seed: Annotated[int, typer.Option(help="Equal seeds give equal bytes.", min=0)] = 1,
    files: Annotated[int, typer.Option(help="Day files to spread the rows over.", min=1)] = 1,
    gzip: Annotated[bool, typer.Option("--gzip", help="Compress the files.")] = False,
    as_json: Json = False,
) -> None:
    """Write click logs with planted truth in Criteo's raw layout."""
    from sizewise.cli.terminal import rows_written
    from sizewise_prep import planted

    with rows_written(rows, as_json) as progress:
        truth = planted.generate(out, rows, seed=seed, files=files, compress=gzip, progress=progress)
    if as_json:
        print_json(
            {
                "out": str(out),
                "rows": rows,
                "bayes_auc": truth.bayes_auc,
                "bayes_logloss": truth.bayes_logloss,
            }
        )
    else:
        print(f"{out}: {rows:,} rows; the best possible AUC on them is {truth.bayes_auc:.4f}")


@app.command()
def prep(
    raw: Annotated[
        list[str] | None, typer.Argument(metavar="RAW...", help="Raw logs, in time order.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the shards.")] = None,
    max_bad_fraction: Annotated[
        float,
        typer.Option(help="Set bad rows aside up to this fraction; 0 stops at the first.", min=0, max=1),
    ] = 0.0,
    shard_rows: Annotated[int, typer.Option(help="Rows a shard.", min=1)] = 524_288,
    split: Annotated[
        str,
        typer.Option(
            help="Where the log is cut in time: fractions for training, validation and test; or rows:A,B, "
            "files:A,B (the rest tests); or mlperf (the last file halved)."
        ),
    ] = "0.8,0.1,0.1",
    tokens: Annotated[
        TokenTreatment,
        typer.Option(
            help="Raw 32-bit tokens; ids from 0 on (which `full` needs); or MLPerf's ids modulo 40,000,000 and "
            "logarithms of integers."
        ),
    ] = TokenTreatment.raw,
    min_count: Annotated[
        int, typer.Option(help="With contiguous ids: rarer tokens share id 0 with missing ones.", min=1)
    ] = 1,
    shuffle: Annotated[
        int | None, typer.Option(metavar="SEED", help="Shuffle rows within each shard by this seed.", min=0)
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(metavar="YAML", help="The columns of logs in another layout than Criteo's.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Local processes; one for each core when left out.", min=1)
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="At most this much for all local workers, or for each task on Ray, such as 2GB."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            envvar="RAY_ADDRESS",
            help="Work on this Ray cluster (auto: one on this machine).",
        ),
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Check a folder of shards against its manifest instead."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn raw click logs into training shards, or check the shards of a folder."""
    from sizewise.cli.terminal import preparing
    from sizewise_core.units import parse_bytes
    from sizewise_prep.pipeline import prep as preparation
    from sizewise_prep.raw.layout import Layout
    from sizewise_prep.shards import manifest as manifests
    from sizewise_prep.shards.cautions import cautions

    if verify is not None:
        damaged = manifests.verify(verify)
        if as_json:
            print_json({"folder": str(verify), "damaged": damaged})
        else:
            print("\n".join(damaged) or f"{verify}: every shard is as its manifest says")
        if damaged:
            raise typer.Exit(1)
        return
    if not raw or out is None:
        raise InputError("prep: give raw logs and --out DIR, or --verify DIR")
    options = preparation.Options(
        split=split,
        shard_rows=shard_rows,
        max_bad_fraction=max_bad_fraction,
        tokens=tokens.value,
        min_count=min_count,
        shuffle=shuffle,
        layout=Layout.load(schema) if schema else None,
    )
    try:
        limit = None if memory is None else parse_bytes(memory)
    except ValueError as error:
        raise InputError(f"--memory: {error}") from None
    began = time.monotonic()
    with preparing(as_json) as progress:
        if ray is None:
            manifest = preparation.prepare(
                raw,
                out,
                options,
                workers=workers or preparation.default_workers(),
                memory=limit,
                progress=progress,
            )
        else:
            from sizewise_prep.pipeline.on_ray import prepare_on_ray

            manifest = prepare_on_ray(raw, out, options, address=ray, memory=limit, progress=progress)
    seconds = time.monotonic() - began
    warnings = cautions(manifest)
    for warning in warnings:
        print(f"sizewise: {out}: {warning}", file=sys.stderr)
    shards = sum(len(part.shards) for part in manifest.splits.values())
    if as_json:
        print_json(
            {
                "out": str(out),
                "rows_in": manifest.rows_in,
                "rows_out": manifest.rows_out,
                "rows_quarantined": manifest.rows_quarantined,
                "shards": shards,
                "seconds": round(seconds, 3),
                "warnings": warnings,
            }
        )
    else:
        aside = (
            f", {manifest.rows_quarantined:,} set aside in quarantine/" if manifest.rows_quarantined else ""
        )
        print(f"{out}: {manifest.rows_out:,} rows in {shards} shards{aside}")
