"""Earlier reports as reports of today: every number goes to the field that has its name.

Up to schema 2 a number was a JSON object `{"value", "low", "high", ...}` with its counts beside its value. The models
of today say which of the old keys are estimates. A key for which there is no field is an error: no number is lost.
"""

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from mil.errors import ReportError
from mil.report.reshape import RESHAPED, Json, from_schema_1, separate_cuts
from mil.report.schema import NOT_OURS, SCHEMA_VERSION, About, Estimate, Report, section_classes

PLAIN = ("value", "low", "high", "level", "method", "p", "folds", "resamples", "unit")
"""Keys of a number that kept their names."""
SECOND = ("exact", "plain", "second")
"""Keys of a number's second interval."""
REFUSED = "not estimable: "
KEPT = ("seed", "resamples", "folds", "patients", "looks")
"""Keys of a report whose values did not change."""


def upgrade(old: Json) -> Report:
    """Return a report of any schema as a report of today.

    Args:
        old: What a report.json holds.

    Raises:
        ReportError: the schema is unknown, or a key has no place in today's report.
        ValidationError: a value has the wrong type.
    """
    if old.get("schema_version") == SCHEMA_VERSION:
        return Report.model_validate(_third(old))
    if old.get("schema") not in (1, 2):
        raise ReportError(f"report: schema {old.get('schema', old.get('schema_version'))!r}, expected 1, 2 or 3")
    return Report.model_validate(_report(from_schema_1(old) if old["schema"] == 1 else old))


def _third(old: Json) -> Json:
    """Return a report of schema 3, also one of its first writers, as it is written today."""
    new = dict(old)
    if isinstance(about := old.get("about"), Mapping):
        new["about"] = _stated(dict(about))
    if isinstance(sections := old.get("sections"), Mapping):
        new["sections"] = separate_cuts(dict(sections))
    if isinstance(parts := old.get("parts"), Mapping):
        new["parts"] = {name: _third(part) for name, part in parts.items()}
    if isinstance(run := old.get("run"), Mapping):
        new["run"] = _third(dict(run))
    return new


def _stated(about: Json) -> Json:
    """Return what a report is about, without the "no" that was written where nobody had stated it."""
    guessed = ("external", "simulated") if about.get("model") == NOT_OURS else ()
    return {key: value for key, value in about.items() if value is not False or key not in guessed}


def _report(old: Json) -> Json:
    old = separate_cuts(old)
    about = _stated({"external": False} | {key: old[key] for key in About.model_fields if old.get(key) is not None})
    classes = {section.key: section for section in section_classes()}
    new = {key: old[key] for key in KEPT if old.get(key) is not None} | {"about": about}
    new["metrics"] = {name: upgraded_estimate(number, f"metrics.{name}") for name, number in old["metrics"].items()}
    new["sections"] = {
        key: upgraded(section, old[key], key) for key, section in classes.items() if old.get(key) is not None
    }
    for key in ("fitted", "gates"):
        new[key] = upgraded(Report.model_fields[key].annotation, old.get(key) or [], key)
    new["parts"] = {name: _report(part) for name, part in (old.get("parts") or {}).items()}
    new["run"] = _report(old["run"]) if old.get("run") else None
    placed = {*About.model_fields, *new, *classes, "schema"}
    if unplaced := [key for key, value in old.items() if key not in placed and value is not None]:
        raise ReportError(f"report: {unplaced[0]} has no place in today's report")
    return new


def upgraded(annotation: Any, old: Any, place: str) -> Any:
    """Return the JSON value of schema 2 as a field of this type expects it.

    Raises:
        ReportError: the old value has a key without a field.
    """
    kind = _bare(annotation)
    if old is None or kind is Any:
        return old
    if get_origin(kind) is tuple and isinstance(old, list):
        inner = get_args(kind)
        return [upgraded(inner[min(at, len(inner) - 2)], item, f"{place}[{at}]") for at, item in enumerate(old)]
    if get_origin(kind) in (dict, Mapping) and isinstance(old, dict):
        return {key: upgraded(get_args(kind)[1], item, f"{place}.{key}") for key, item in old.items()}
    if isinstance(kind, type) and isinstance(old, dict):
        if issubclass(kind, Estimate):
            return upgraded_estimate(old, place)
        if issubclass(kind, BaseModel):
            return _record(kind, old, place)
    return old


def upgraded_estimate(old: Json, place: str) -> Json:
    """Return a number of schema 2 as an estimate; integers beside it are its counts.

    Raises:
        ReportError: a key that belongs to no estimate.
    """
    new = {key: old[key] for key in PLAIN if old.get(key) is not None}
    new["value"] = old.get("value")
    if old.get("reason"):
        new["reason"] = str(old["reason"]).removeprefix(REFUSED)
    counts = dict(old.get("counts") or {})
    for key, value in old.items():
        if key in SECOND:
            new["second"] = value
        elif key not in (*PLAIN, "reason", "counts"):
            if not isinstance(value, int | None):
                raise ReportError(f"{place}: {key} of a number has no place in today's report")
            counts |= {} if value is None else {key: value}
    first = {key: counts.pop(key) for key in ("n",) if key in counts}
    return new | {"counts": first | counts}


def _record(model: type[BaseModel], old: Json, place: str) -> Json:
    if model in RESHAPED:
        old = RESHAPED[model](dict(old))
    fields = {info.alias or name: info for name, info in model.model_fields.items()}
    if "estimate" in fields and "value" in old:
        rest = {key: value for key, value in old.items() if key not in fields}
        old = {key: value for key, value in old.items() if key in fields} | {"estimate": rest}
    if unplaced := [key for key, value in old.items() if key not in fields and value is not None]:
        raise ReportError(f"{place}: {unplaced[0]} has no place in {model.__name__}")
    return {
        key: upgraded(fields[key].annotation, value, f"{place}.{key}")
        for key, value in old.items()
        if key in fields and (value is not None or fields[key].is_required())
    }


def _bare(annotation: Any) -> Any:
    """Return the type without None and without annotations."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _bare(get_args(annotation)[0])
    if origin in (Union, UnionType):
        given = [each for each in get_args(annotation) if each is not type(None)]
        return _bare(given[0]) if len(given) == 1 else Any
    return annotation
