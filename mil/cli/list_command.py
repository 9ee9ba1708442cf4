"""`mil list`.

Models and endpoints are described by their classes, which load torch; `listed.json` holds these tables, so that the
command answers at once. `python -m mil.cli.list_command > mil/cli/listed.json` writes it; a test compares it.
"""

import hashlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import cast

from rich.table import Table

from mil.cli.terminal_lines import print_tables
from mil.config import PLURALS, choices, conf_dir, described
from mil.errors import ConfigError

IN_DIM = 1024
"""Width of the features for which the parameters of a model are counted; it has one logit."""
STORED = Path(__file__).with_name("listed.json")
Row = dict[str, str]


def show(what: str) -> None:
    """Print one table, or all.

    Raises:
        ConfigError: No such table.
    """
    makers = {"tools": _tools, "models": _stored_models, "encoders": _encoders, "endpoints": _stored_endpoints}
    assert set(PLURALS) < set(makers)
    if what and what not in makers:
        raise ConfigError(f"mil list {what}: expected {', '.join(makers)}")
    for name in [what] if what else makers:
        print_tables(_table(name, list(makers[name]())))


def _table(title: str, rows: list[Row]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    return table


def _tools() -> Iterator[Row]:
    for name, node in described("tool").items():
        tool = node["tool"]
        kind = tool["endpoint"]["_target_"].rpartition(".")[2]
        yield {"tool": name, "endpoint": kind.lower(), "category": tool["category"], "question": tool["question"]}


def facts() -> dict[str, str | list[Row]]:
    """Return the tables that need the classes, and the digest of the files that they were made from."""
    return {"digest": _digest(), "models": list(_models()), "endpoints": list(_endpoints())}


def _stored_models() -> list[Row]:
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    # models of a changed `conf/model/` are built
    return cast(list[Row], stored["models"]) if stored["digest"] == _digest() else list(_models())


def _stored_endpoints() -> list[Row]:
    return cast(list[Row], json.loads(STORED.read_text(encoding="utf-8"))["endpoints"])


def _digest() -> str:
    """Return the digest of the files of `conf/model/`."""
    folder = conf_dir() / "model"
    return hashlib.sha256(b"".join((folder / f"{name}.yaml").read_bytes() for name in choices("model"))).hexdigest()


def _models() -> Iterator[Row]:
    from hydra.utils import instantiate  # `mil.study.build` would take two seconds to load, the meta device one

    for name, node in described("model").items():
        model = instantiate(node, _convert_="all", in_dim=IN_DIM, out_dim=1)
        yield {
            "model": name,
            "paper": model.paper,
            "parameters": f"{sum(weight.numel() for weight in model.parameters()):,}",
            "needs": "coordinates" if model.needs_coords else "-",
            "cost": model.cost,
        }


def _encoders() -> Iterator[Row]:
    for name, node in described("encoder").items():
        width = node.get("dim", "as the files say")
        yield {
            "encoder": name,
            "width": "give encoder.dim" if width == "???" else "simulation.width" if "$" in str(width) else str(width),
            "mpp": str(node.get("mpp", "")),
            "licence of weights": str(node.get("licence", "")),
        }


def _endpoints() -> Iterator[Row]:
    import mil.endpoints
    from mil.endpoints.endpoint import Endpoint

    for module in pkgutil.iter_modules(mil.endpoints.__path__, "mil.endpoints."):
        for _, member in inspect.getmembers(import_module(module.name), inspect.isclass):
            if issubclass(member, Endpoint) and not inspect.isabstract(member) and member.__module__ == module.name:
                purpose = (inspect.getdoc(member) or "").partition("\n")[0]
                yield {"endpoint": member.__name__.lower(), "metric": member.metric, "what": purpose}


if __name__ == "__main__":
    json.dump(facts(), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
