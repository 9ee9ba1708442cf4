"""`mil zoo` and `mil release`: released tools, here and in registries."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mil.cli.complete import tool as released
from mil.cli.report_place import say_where
from mil.cli.terminal_lines import add_row, print_tables, write_lines

app = typer.Typer(name="zoo", help="Released tools: list, show, pull, push, sign, verify.", no_args_is_help=True)
Registry = Annotated[
    str | None,
    typer.Option(envvar="MIL_REGISTRY", help="a folder, an fsspec URL, or hf://owner/repo"),
]
SIGNED, REFUSED = "signed", "signature refused"
_DATA = {True: "SIMULATED", False: "patients", None: "manifest cannot be read"}
"""What a tool was trained on, in the list of tools."""
Key = Annotated[Path | None, typer.Option(help="public key (PEM) of the required signer")]


@app.command("list")
def list_(registry: Registry = None) -> None:
    """List the installed and pulled tools, or those of a registry, and which were trained on simulated data."""
    from rich.table import Table

    from mil.zoo import registry as registries

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("tool", "version", "data") if registry else ("tool", "version", "data", "category", "question"):
        table.add_column(head, overflow="fold")
    if registry:
        rows = [[name, version, _DATA[simulated]] for name, version, simulated in registries.listed_origins(registry)]
    else:
        rows = [_described(name, version, folder) for name, version, folder in registries.local()]
    for row in rows:
        add_row(table, row)
    print_tables(table)


@app.command()
def show(
    tool: Annotated[str, typer.Argument(help="msi-crc, msi-crc@1.0.0, or a folder", autocompletion=released)],
) -> None:
    """Show what a tool predicts, for whom, how well, and what it must not be used for."""
    from mil import checkpoint
    from mil.report.report_files import read_report
    from mil.runs.describe import REPORT
    from mil.zoo.attach import read_external
    from mil.zoo.index import facts_box
    from mil.zoo.registry import resolve

    folder = resolve(tool)
    manifest = checkpoint.read_manifest(folder)
    write_lines(facts_box(manifest, read_report(folder / REPORT), read_external(folder)), folder)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="msi-crc, msi-crc@1.0.0, or a folder")],
    second: Annotated[str, typer.Argument(metavar="B", help="another version of the same tool")],
    out: Annotated[Path | None, typer.Option(help="also write a page, .html, with every item side by side")] = None,
) -> None:
    """Compare the cards of two versions of a tool, item by item; prints what differs."""
    from mil import files
    from mil.output_places import check_output_file
    from mil.zoo.compare_cards import compare_cards, comparison_page
    from mil.zoo.registry import resolve

    folders = [resolve(name) for name in (first, second)]
    if out is not None:
        check_output_file(out, folders)
    comparison = compare_cards(*folders)
    write_lines(*comparison.lines())
    if out is not None:
        files.write(out, comparison_page(comparison))
        typer.echo(str(out))
        say_where(out)


@app.command()
def pull(
    tool: Annotated[str, typer.Argument(help="msi-crc (the newest version) or msi-crc@1.0.0")],
    registry: Registry = None,
    out: Annotated[Path | None, typer.Option(help="the folder to write; default: the cache of pulled tools")] = None,
    key: Key = None,
) -> None:
    """Download a tool; its digest is checked before any of it is read."""
    from mil import checkpoint
    from mil.output_places import check_output_folder
    from mil.zoo.registry import pull as fetch

    if out is not None and not (out / checkpoint.MANIFEST).is_file():  # the same release may be there
        check_output_folder(out, [key])
    typer.echo(str(fetch(_named(registry), tool, out, key)))


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="a released folder")],
    registry: Registry = None,
    sign: Annotated[Path | None, typer.Option(help="private key (PEM) to sign with")] = None,
) -> None:
    """Upload a released folder to a registry; an existing version is never overwritten."""
    from mil import checkpoint
    from mil.zoo import signing
    from mil.zoo.registry import push as put
    from mil.zoo.release import check_release

    address = _named(registry)
    if sign is not None:
        manifest = checkpoint.read_manifest(folder)
        signing.check_key(sign, "private")
        check_release(folder, manifest)
        signing.sign(folder, sign)
    typer.echo(put(folder, address))


@app.command()
def sign(
    folder: Annotated[Path, typer.Argument(help="a released folder")],
    key: Annotated[Path, typer.Option(help="private elliptic-curve key (PEM)")],
) -> None:
    """Sign a released folder; the signature is the file FOLDER.sig beside it, and belongs to every copy."""
    from mil import checkpoint
    from mil.zoo import signing
    from mil.zoo.release import check_release

    manifest = checkpoint.read_manifest(folder)
    signing.check_key(key, "private")
    check_release(folder, manifest)
    typer.echo(str(signing.sign(folder, key)))


@app.command()
def verify(
    folders: Annotated[
        list[str] | None, typer.Argument(help="folders or names; default: all installed and pulled tools")
    ] = None,
    key: Key = None,
    processes: Annotated[int, typer.Option(min=1, help="processes that verify in parallel")] = 2,
) -> None:
    """Check signatures, files, weights, figures, and every number of the cards against the stored predictions.

    The first line says how many releases are signed, then one line follows per tool and per index. Exit code 1 if any
    of them fails.
    """
    from mil.zoo.registry import local, resolve
    from mil.zoo.signing import check_key
    from mil.zoo.verify import verify_all, verify_index

    if key is not None:
        check_key(key, "public")
    places = [resolve(name) for name in folders] if folders else [folder for _, _, folder in local()]
    signatures = {place: _signature(place, key) for place in places}
    typer.echo(_signatures_line([state for state, _ in signatures.values()]))
    sound = True
    for place, problems in verify_all(places, processes):
        state, refusals = signatures[place]
        sound = _print_verdict(place.name, [*refusals, *problems], f" ({state})") and sound
    for folder in dict.fromkeys(place.parent for place in places):
        problems_of_index = verify_index(folder, [place.name for place in places if place.parent == folder])
        if problems_of_index is not None:
            sound = _print_verdict(f"{folder.name}/README.md", problems_of_index) and sound
    raise typer.Exit(0 if sound else 1)


def _signature(place: Path, key: Path | None) -> tuple[str, list[str]]:
    """Return the state of a signature, and why it is refused."""
    from mil.errors import CheckpointError
    from mil.zoo.policy import check_origin

    try:
        return check_origin(place, key), []
    except CheckpointError as error:
        return REFUSED, [str(error)]


def _signatures_line(states: Sequence[str]) -> str:
    """Say how many releases are signed, and what an unsigned one does not prove."""
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    note = "; where no signature was checked, files that agree may all have been changed together"
    return f"signatures: {counts or 'no release'}{note if set(states) - {SIGNED} else ''}"


def _print_verdict(name: str, problems: Sequence[str], state: str = "") -> bool:
    summary = "; ".join(problems[:5]) + (f" and {len(problems) - 5} more" if len(problems) > 5 else "")
    write_lines(f"{name}: {summary or 'sound'}{state}")
    sys.stdout.flush()
    return not problems


def release(run: Path, version: str, out: Path, fold: int, note: str | None, date: str | None) -> None:
    """Release a run and print which gates pass, then the folder.

    Raises:
        MilError: The run cannot be released.
    """
    from mil.cards import CARD_PAGE
    from mil.output_places import check_tools_folder
    from mil.report.report_files import read_report
    from mil.runs.describe import REPORT
    from mil.runs.run_inputs import with_recorded
    from mil.zoo.gates import gate_lines
    from mil.zoo.release import release as publish

    check_tools_folder(out, with_recorded([run]))
    place = publish(run, version, out, fold, note, date)
    for line in gate_lines(read_report(place / REPORT).gates):
        typer.echo(line)
    typer.echo(str(place))
    say_where(place / CARD_PAGE)


def _described(name: str, version: str, folder: Path) -> list[str]:
    from mil import files

    manifest = files.read_json(folder / "manifest.json")
    tool, simulated = manifest["tool"], bool(manifest.get("data", {}).get("simulated", False))
    return [name, version, _DATA[simulated], str(tool.get("category", "")), str(tool.get("question", ""))]


def _named(registry: str | None) -> str:
    if registry is None:
        raise typer.BadParameter("give --registry, or set MIL_REGISTRY")
    return registry
