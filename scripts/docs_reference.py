"""The generated pages of the reference: what the package itself says, as Markdown.

Help texts, the files of `conf/`, docstrings, the report's schema, and the tables of `docs/benchmarks.md`.
"""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docs_options import FILLED_IN, HEAD, Option, kind, meanings, options, plain
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from mil import config
from mil.cli.examples import EXAMPLES
from mil.cli.main import app

ROOT = Path(__file__).parents[1]


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
            parts += ["| option | meaning | default |", "|---|---|---|", *rows, ""]
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
    """Every value that can be set, with its type, default, unit and meaning."""
    parts = [
        "# Configuration",
        "",
        "Generated from the files of `conf/` and the classes that check them. The folder's name is the option, the",
        "file's its value: `model=abmil`. Any value can be set on the command line: `data.batch_bags=8`.",
        "`mil train --cfg job` prints",
        "what results. The options of models are under [all models](models.md), those of endpoints under",
        "[all endpoints](endpoints.md).",
    ]
    for title, introduction, rows in options():
        parts += ["", f"## {title}", "", introduction, ""]
        parts += [*HEAD, *(option.row for option in rows)] if rows else ["There is nothing to set."]
    tools = config.described("tool")
    parts += ["", "## Tools", "", "The zoo's tools and those for questions of one's own:", ""]
    parts += [f"- `tool={name}`: {_cell(str(node['tool']['title']))}" for name, node in tools.items()]
    return "\n".join(parts) + "\n"


def models() -> str:
    """Every model: paper, equation and departures (its docstring), options, cost, needs and its benchmark rows."""
    from hydra.utils import instantiate

    parts = [
        "# All models",
        "",
        "Generated from `conf/model/`, the modules of `mil/models/` and the tables of [benchmarks](../benchmarks.md),",
        "which",
        "say how the numbers were made; parameters for features 1,024 wide and one logit.",
    ]
    benchmarks = benchmark_rows()
    for name, node in config.described("model").items():
        model = instantiate(node, _convert_="all", in_dim=1024, out_dim=1)
        cls = type(model)
        size = sum(weight.numel() for weight in model.parameters())
        needs = "needs coordinates" if model.needs_coords else "coordinates are not needed"
        module = inspect.getmodule(cls)
        texts = [inspect.getdoc(module), inspect.getdoc(cls), inspect.getdoc(cls.__init__)]
        parts += ["", f"## {name}", "", f"{model.paper}. {size:,} parameters; cost {model.cost}; {needs}.", ""]
        parts += [_quoted("\n\n".join(dict.fromkeys(filter(None, texts)))), ""]
        parts += [*HEAD, *(option.row for option in model_options(cls, node)), ""]
        rows = [f"| {head} | {cell} |" for head, cell in benchmarks[name]]
        parts += ["| benchmark | result |", "|---|---|", *rows] if rows else [NOT_MEASURED]
    return "\n".join(parts) + "\n"


def model_options(cls: type[object], node: Mapping[str, object]) -> Iterator[Option]:
    """Yield the arguments of a model that its yaml or the command line can set."""
    for name, argument in inspect.signature(cls).parameters.items():
        if name not in {*FILLED_IN, "in_dim", "out_dim"}:
            default = plain(node[name]) if name in node else plain(argument.default)
            yield Option(f"model.{name}", kind(argument.annotation, default), default, _parameter(cls, name))


def _parameter(cls: type[object], name: str) -> str:
    """Return what a model's docstrings say about an argument: the clause that names it."""
    if meaning := meanings(cls).get(name):
        return meaning
    text = " ".join(" ".join(inspect.getdoc(each) or "" for each in (cls.__init__, cls)).split())
    clause = re.search(rf"[^.;]*`{name}[`=][^.;]*(?:\.(?=\d)[^.;]*)*", text)
    if clause is None and name not in MODEL_WORDS:
        raise KeyError(f"{cls.__name__}.{name}: neither its docstrings nor MODEL_WORDS say what it is")
    return clause[0].strip() if clause else MODEL_WORDS[name]


NOT_MEASURED = "Not in the tables of benchmarks yet; `scripts/benchmark_models` measures it."
MODEL_WORDS = {
    "embed_dim": "width of the tiles' embeddings",
    "attention_dim": "width of the attention's hidden layer",
    "heads": "attention heads",
    "gated": "gated attention instead of plain",
    "dropout": "share of units that are dropped in training",
    "layers": "layers",
    "weight": "weight of the model's further loss",
    "learn_alpha": "whether the strength of the smoothing is learned",
    "spectral": "whether layers after the smoothing are divided by their spectral norm",
    "hidden_dims": "widths of the two hidden layers",
    "multi_branch": "one attention branch for each class",
    "k": "tiles of highest and of lowest attention that the instance loss takes",
    "hidden_dim": "width of the feed-forward layers",
    "value": "whether a layer transforms the tiles before they are summed",
    "pseudo_bags": "pseudo-bags into which a bag is divided",
    "blocks": "graph layers",
    "neighbours": "nearest tiles that are joined",
    "prototypes": "number of prototypes",
    "attention_dropout": "share of attention weights that are dropped in training",
    "act": "function of the variance before it is classified",
}
"""What arguments mean that several models share."""


def benchmark_rows() -> dict[str, list[tuple[str, str]]]:
    """Return the cells of each model's rows in the tables of `docs/benchmarks.md`, with the heads of their columns."""
    rows: dict[str, list[tuple[str, str]]] = {name: [] for name in config.choices("model")}
    heads: list[str] = []
    for line in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")] if line.startswith("|") else []
        if not cells:
            heads = []
        elif not heads:
            heads = cells
        elif (name := cells[0].strip("`")) in rows:
            cells += [""] * (len(heads) - len(cells))
            pairs = zip(heads[1:], cells[1:], strict=True)
            rows[name] += [
                (f"{heads[0]}: {head}" if heads[0] != "model" else head, cell) for head, cell in pairs if cell
            ]
    return rows


def _quoted(docstring: str) -> str:
    """A docstring as a block of text; lines that its source broke at its margin are joined, equations keep theirs."""
    text = re.sub(rf"(?m)^(\S.{{{MARGIN},}})\n(?=[^\s*-])", r"\1 ", docstring.rstrip())
    return f"```text\n{text}\n```"


MARGIN = 80
"""Letters after which a line of a docstring may have been broken because the source's line was full."""


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
