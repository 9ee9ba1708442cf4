"""Assemble the pages of the documentation in build/docs, and build the site from them with warnings as errors.

usage: scripts/docs [--pages-only]

Pages of `docs/` are copied. The reference is generated from what the package itself says: help texts, the files of
`conf/`, docstrings and the report's schema. Cards are copied as they are. Links that lead out of `docs/` (such as
../model_cards/) are turned to where the site has the page.
"""

import argparse
import inspect
import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.commands.build import build
from mkdocs.config import load_config
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from mil import config
from mil.cli.examples import EXAMPLES
from mil.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "docs"
CARDS = ROOT / "model_cards"


def main() -> None:
    """Write the pages, then the site."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages-only", action="store_true", help="do not build the site")
    options = parser.parse_args()
    write_pages()
    if not options.pages_only:
        build_site()


def write_pages() -> None:
    """Write every page of the site as Markdown to `build/docs`."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for source in sorted((ROOT / "docs").rglob("*")):
        if source.is_file() and source.suffix in (".md", ".png", ".svg"):
            _write(source.relative_to(ROOT / "docs"), source)
    _write(Path("index.md"), ROOT / "README.md")
    _write(Path("changelog.md"), ROOT / "CHANGELOG.md")
    _write(Path("contributing.md"), ROOT / "CONTRIBUTING.md")
    _write(Path("security.md"), ROOT / "SECURITY.md")
    _write(Path("zoo.md"), CARDS / "README.md")
    zoo = PAGES / "zoo.md"
    zoo.write_text(f"---\nhide: [toc]\n---\n{zoo.read_text(encoding='utf-8')}{FILTER}", encoding="utf-8")
    for name in ("CITATION.cff", "LICENSE"):
        shutil.copyfile(ROOT / name, PAGES / name)
    for folder in sorted(path.parent for path in CARDS.glob("*/model_card.html")):
        shutil.copytree(folder, PAGES / "cards" / folder.name, ignore=shutil.ignore_patterns("*.md", "golden"))
    for name, text in {
        "commands": commands(),
        "configuration": configuration(),
        "models": models(),
        "endpoints": endpoints(),
        "encoders": encoders(),
        "formats": formats(),
        "report": report(),
        "python": PYTHON,
    }.items():
        page = PAGES / "reference" / f"{name}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")


def build_site() -> None:
    """Build the site; a warning of MkDocs ends with an error."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    settings = load_config(str(ROOT / "docs" / "mkdocs.yml"), strict=True)
    build(settings)
    print(f"{settings.site_dir}/index.html")


def _write(target: Path, source: Path) -> None:
    page = PAGES / target
    page.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix != ".md":
        shutil.copyfile(source, page)
        return
    text = source.read_text(encoding="utf-8")
    page.write_text(re.sub(r"(\]\()([^)#:\s]+)", lambda link: link[1] + _turned(link[2], source, target), text))


def _turned(link: str, source: Path, target: Path) -> str:
    """The link of a page to a file of the repository, as a link between pages of the site.

    Files that the site does not have are shown by the address that the repository gives them: the path itself.
    """
    place = (source.parent / link).resolve()
    site = _page_of(place)
    if site is None:
        return link
    return str(Path(*[".."] * (len(target.parts) - 1), site))


def _page_of(place: Path) -> Path | None:
    special = {
        ROOT / "CITATION.cff": "CITATION.cff",
        ROOT / "README.md": "index.md",
        ROOT / "CHANGELOG.md": "changelog.md",
        ROOT / "CONTRIBUTING.md": "contributing.md",
        ROOT / "SECURITY.md": "security.md",
        CARDS / "README.md": "zoo.md",
    }
    if place in special:
        return Path(special[place])
    if place.is_relative_to(CARDS) and (place.parent / "model_card.html").is_file():
        name = "model_card.html" if place.name == "README.md" else place.name
        return Path("cards") / place.parent.name / name
    if place.is_relative_to(ROOT / "docs") and place.suffix in (".md", ".png", ".svg"):
        return place.relative_to(ROOT / "docs")
    return None


def commands() -> str:
    """Every command with its purpose, options and examples."""
    parts = [
        "# Commands",
        "",
        "Generated from the help of each command; exit code 2 is an error in one line on stderr.",
    ]
    for name, command in _commands(get_command(app)):
        options = [parameter for parameter in command.params if parameter.name != "help"]
        rows = [_option_row(parameter) for parameter in options]
        parts += ["", f"## mil {name}", "", inspect.cleandoc(command.help or ""), ""]
        if rows:
            parts += ["| | | default |", "|---|---|---|", *rows, ""]
        parts += ["```sh", *EXAMPLES[name], "```"]
    return "\n".join(parts) + "\n"


def _commands(group: object, prefix: str = "") -> Iterator[tuple[str, TyperCommand]]:
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        if isinstance(command, TyperCommand):
            yield f"{prefix}{name}", command
        else:
            yield from _commands(command, f"{prefix}{name} ")


def _option_row(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.opts) if parameter.param_type_name == "option" else ""
    shown = names or f"`{parameter.name}`"
    default = "" if parameter.default in (None, False) or callable(parameter.default) else f"`{parameter.default}`"
    return f"| {shown} | {_cell(getattr(parameter, 'help', None) or '')} | {default} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def configuration() -> str:
    """Every file of `conf/` with its comments: what can be set, with default and meaning."""
    parts = [
        "# Configuration",
        "",
        "Generated from the files of `conf/`. The folder's name is the option, the file's its value: `model=abmil`.",
        "Any value can be set on the command line: `data.batch_bags=8`. `mil train --cfg job` prints what results.",
    ]
    for title, path in (("train", "train.yaml"), ("data", "data/default.yaml"), ("trainer", "trainer/default.yaml")):
        text = (config.conf_dir() / path).read_text(encoding="utf-8")
        parts += ["", f"## {title}", "", f"```yaml title=conf/{path}", text.rstrip(), "```"]
    for group in config.groups():
        if group in ("data", "trainer", "tool", "model", "encoder"):
            continue
        parts += ["", f"## {group}"]
        for name in config.choices(group):
            text = (config.conf_dir() / group / f"{name}.yaml").read_text(encoding="utf-8")
            parts += ["", f"```yaml title={group}={name}", text.rstrip(), "```"]
    parts += ["", "## tool", "", "The zoo's tools and those for questions of one's own:", ""]
    for name in config.choices("tool"):
        parts.append(f"- `tool={name}`: {_cell(str(config.described('tool')[name]['tool']['title']))}")
    return "\n".join(parts) + "\n"


def models() -> str:
    """Every model: paper, equation and departures (its docstring), options, cost and needs."""
    from hydra.utils import instantiate

    parts = [
        "# All models",
        "",
        "Generated from `conf/model/` and the modules of `mil/models/`; parameters for features 1,024",
    ]
    parts += ["wide and one logit. [Benchmarks](../benchmarks.md) shows how each does."]
    for name, node in config.described("model").items():
        model = instantiate(node, _convert_="all", in_dim=1024, out_dim=1)
        kind = type(model)
        size = sum(weight.numel() for weight in model.parameters())
        options = ", ".join(f"`{key}={value}`" for key, value in node.items() if key != "_target_") or "the defaults"
        module = inspect.getmodule(kind)
        paper = _quoted(inspect.getdoc(module) or "")
        parts += ["", f"## {name}", "", f"{model.paper}. {size:,} parameters; cost {model.cost}; "]
        parts[-1] += "needs coordinates. " if model.needs_coords else "coordinates are not needed. "
        parts[-1] += f"Options: {options}."
        parts += ["", paper, "", _quoted(inspect.getdoc(kind) or "")]
    return "\n".join(parts) + "\n"


def _quoted(docstring: str) -> str:
    """A docstring as a block that keeps its lines: equations are laid out by hand."""
    return f"```text\n{docstring.rstrip()}\n```"


def endpoints() -> str:
    """Every endpoint's constructor and members, from its docstrings."""
    import pkgutil
    from importlib import import_module

    import mil.endpoints
    from mil.endpoints.endpoint import Endpoint

    parts = ["# All endpoints", "", "Generated from `mil/endpoints/`."]
    for module in pkgutil.iter_modules(mil.endpoints.__path__, "mil.endpoints."):
        for name, member in inspect.getmembers(import_module(module.name), inspect.isclass):
            if issubclass(member, Endpoint) and not inspect.isabstract(member) and member.__module__ == module.name:
                parts += ["", f"## {name}", "", f"Metric: `{member.metric}`. {inspect.getdoc(member) or ''}"]
                parts += ["", _quoted(f"{name}{inspect.signature(member)}\n\n{inspect.getdoc(member.__init__) or ''}")]
    return "\n".join(parts) + "\n"


def encoders() -> str:
    """Every encoder: width, resolution, tile, licence of its weights, what it was trained on."""
    rows = []
    for name, node in config.described("encoder").items():
        names, cohorts = (", ".join(map(str, node.get(key) or [])) for key in ("aliases", "pretrained_on"))
        row = [name, node.get("dim", ""), node.get("mpp", ""), node.get("tile_px", ""), node.get("licence", "")]
        rows.append("| " + " | ".join(_cell(str(cell)) for cell in [*row, cohorts, names]) + " |")
    head = "| encoder | width | µm a pixel | tile | licence of the weights | trained on | names in files |"
    return "\n".join(
        ["# Encoders", "", "Generated from `conf/encoder/`.", "", head, "|---|---|---|---|---|---|---|", *rows, ""]
    )


def formats() -> str:
    """Every reader of feature files, from its module's docstring."""
    parts = [
        "# Formats",
        "",
        "Generated from `mil/features/formats/`. What each leaves open: [your data](../how-to/your-data.md).",
    ]
    for path in sorted((ROOT / "mil" / "features" / "formats").glob("read_*.py")):
        docstring = re.match(r'"""(.*?)"""', path.read_text(encoding="utf-8"), re.DOTALL)
        assert docstring is not None, path
        parts += ["", f"## {path.stem.removeprefix('read_')}", "", _quoted(docstring[1])]
    return "\n".join(parts) + "\n"


def report() -> str:
    """The fields of report.json, from its JSON Schema."""
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    parts = ["# Report", "", "Generated from the JSON Schema of `report.json` (`docs/report.schema.json`).", ""]
    definitions = {"Report": schema, **schema.get("$defs", {})}
    for name, definition in definitions.items():
        fields = definition.get("properties", {})
        if not fields:
            continue
        parts += ["", f"## {name}", "", _cell(definition.get("description", "").split("\n\n")[0]), ""]
        parts += ["| field | type | meaning |", "|---|---|---|"]
        for key, field in fields.items():
            meaning = _cell(field.get("description", ""))
            parts.append(f"| `{key}` | {_type(field)} | {meaning} |")
    return "\n".join(parts) + "\n"


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(_type(each) for each in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}" if isinstance(field.get("items"), dict) else "list"
    return str(field.get("type", "any"))


FILTER = """
<script>
// A field above the first table that hides the rows without its words; without JavaScript every row is shown.
const field = document.createElement("input");
field.placeholder = field.ariaLabel = "Show only tools with these words";
field.style = "width: 100%; padding: .5em; border: 1px solid; font: inherit";
field.addEventListener("input", () => {
  const words = field.value.toLowerCase().split(/\\s+/);
  for (const row of document.querySelectorAll("table tbody tr"))
    row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
});
document.querySelector("h2").before(field);
</script>
"""
"""Appended to the index of the zoo."""

PYTHON = """# Python

Generated from the docstrings of `mil/api.py` and what it returns. The command line calls the same functions.

::: mil.api

::: mil.stats.estimate.Estimate

::: mil.models.mil_model

::: mil.bags
"""


if __name__ == "__main__":
    main()
