"""The commands that tell what there is: ``passes``, ``recipes``, ``schema`` and ``completion``."""

from __future__ import annotations

import click

from graphopt.cli.console import JSON, dumps, settings, talk, write_json


@click.group()
def passes() -> None:
    """List the passes there are, or show one."""


@passes.command("list")
@JSON
@talk
def passes_list(json_path: str | None) -> None:
    """List all passes, by family, in the order in which they run."""
    from graphopt.catalog import catalog

    entries = catalog()
    write_json(json_path, dumps([entry.brief() for entry in entries]))
    if json_path != "-":
        console = settings().console(stderr=False)
        for entry in entries:
            console.print(f"{entry.name:<36} {entry.summary}", soft_wrap=True)


@passes.command("show")
@click.argument("name")
@JSON
@talk
def passes_show(name: str, json_path: str | None) -> None:
    """Show what the pass NAME does, when it refuses, and its options."""
    from graphopt.catalog import describe_pass

    entry = describe_pass(name)
    write_json(json_path, dumps(entry.full()))
    if json_path != "-":
        settings().console(stderr=False).print(entry.text(), soft_wrap=True)


@click.group()
def recipes() -> None:
    """List the recipes that come with graphopt, or show one."""


@recipes.command("list")
@JSON
@talk
def recipes_list(json_path: str | None) -> None:
    """List the recipes, each with what it is for and its passes."""
    from graphopt.shipped_recipes import shipped_recipes

    found = [(name, shipped.recipe()) for name, shipped in shipped_recipes().items()]
    entries = [
        {"name": name, "summary": recipe.summary, "passes": [step.name for step in recipe.passes]}
        for name, recipe in found
    ]
    write_json(json_path, dumps(entries))
    if json_path != "-":
        console = settings().console(stderr=False)
        for name, recipe in found:
            console.print(f"{name:<20} {recipe.summary}", soft_wrap=True)


@recipes.command("show")
@click.argument("name")
@talk
def recipes_show(name: str) -> None:
    """Print the recipe NAME, a file to begin one of your own with."""
    from graphopt.shipped_recipes import shipped_recipe

    click.echo(shipped_recipe(name).text, nl=False)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@talk
def completion(shell: str) -> None:
    """Print the completion script for SHELL; source it from the shell's start-up file."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root().command
    click.echo(found(root, {}, "graphopt", "_GRAPHOPT_COMPLETE").source())


@click.command()
@talk
def schema() -> None:
    """Print the JSON Schema of the report."""
    from graphopt.report import json_schema

    click.echo(dumps(json_schema()), nl=False)
