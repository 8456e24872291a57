"""The commands ``pack`` and ``unpack``."""

from __future__ import annotations

import click

from graphopt.cli.console import JSON, MODEL, dumps, require_folders, settings, talk, write_json


@click.command()
@MODEL
@click.option(
    "-o", "--output", metavar="FILE", help="Where to write. Default: MODEL.gopt beside the input."
)
@JSON
@talk
def pack(model: str, output: str | None, json_path: str | None) -> None:
    """Pack MODEL and its data files into one archive, without loss.

    All commands read the archive in place of the model; unpack gives back the files byte for byte.
    """
    from dataclasses import asdict

    from graphopt.packing import pack as run

    require_folders(output, json_path)
    with settings().progress():
        found = run(model, output)
    write_json(json_path, dumps(asdict(found)))
    if settings().verbosity >= 0 and json_path != "-":
        from graphopt.report.terminal.packing import render_pack

        settings().console(stderr=False).print(render_pack(found))


@click.command()
@click.argument("archive")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Where to write the model. Default: ARCHIVE.onnx beside the archive.",
)
@JSON
@talk
def unpack(archive: str, output: str | None, json_path: str | None) -> None:
    """Unpack the model in ARCHIVE; its data files go beside it."""
    from dataclasses import asdict

    from graphopt.packing import unpack as run

    require_folders(output, json_path)
    with settings().progress():
        found = run(archive, output)
    write_json(json_path, dumps(asdict(found)))
    if settings().verbosity >= 0 and json_path != "-":
        from graphopt.report.terminal.packing import render_unpack

        settings().console(stderr=False).print(render_unpack(found))
