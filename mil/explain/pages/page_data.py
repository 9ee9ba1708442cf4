"""The numbers of a case page in as few characters as a browser reads fast: typed arrays in base64, within JSON."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mil.explain.map_colours import palette
from mil.explain.pages.case import Belief, Case
from mil.explain.pages.map_layers import Layer
from mil.explain.pages.map_picture import Extent, data_uri
from mil.explain.tile_scores import ExplainedOutput, SlideScores

FULL = 32767
"""Scores are sent as shares of the layer's limit, in 16 bits: 1/32767 of it is the smallest difference."""
Json = Mapping[str, object]


def script_json(data: Json) -> Markup:
    """Return data as JSON that cannot end the script element which holds it, whatever names it has."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def page_data(case: Case, layers: Sequence[Layer]) -> Json:
    """Return everything that the script of a case page draws."""
    scores = case.scores
    return {
        "start": case.first_output,
        "outputs": [output_words(output) for output in scores.outputs],
        "layers": [_layer(layer, case) for layer in layers],
        "slides": [_slide(slide, case) for slide in scores.slides],
        "palettes": {name: _text(palette(name == "signed")) for name in ("signed", "unsigned")},
    }


def output_words(output: ExplainedOutput) -> Json:
    """Return an output as pages write it."""
    return {"name": output.name, "meaning": output.meaning}


def _layer(layer: Layer, case: Case) -> Json:
    outputs = range(len(case.scores.outputs))
    limits = [layer.limit(output) for output in outputs]
    return {
        "title": layer.title,
        "signed": layer.signed,
        "spread": layer.spread,
        "sentence": layer.sentence,
        "units": list(layer.units),
        "note": layer.note,
        "beliefs": [_belief(case.belief(layer.method, output.name)) for output in case.scores.outputs],
        "limits": limits,
        "values": [
            [_text(_shares(values[:, output], limits[output])) for output in outputs] for values in layer.values
        ],
    }


def _belief(belief: Belief) -> Json:
    return {"sentence": belief.sentence, "numbers": belief.numbers, "believable": belief.believable}


def _shares(values: NDArray[np.float64], limit: float) -> NDArray[np.int16]:
    shares = np.nan_to_num(values / limit) if limit > 0 else np.zeros_like(values)
    return np.asarray((shares.clip(-1, 1) * FULL).round(), dtype="<i2")


def _slide(slide: SlideScores, case: Case) -> Json:
    places, tissue, scan = slide.places, case.tissue.get(slide.slide), case.scans.get(slide.slide)
    data: dict[str, object] = {"name": slide.slide, "tiles": len(slide), "mpp": slide.mpp}
    if places is not None:
        data["places"] = {name: _column(getattr(places, name)) for name in ("x", "y", "width", "height")}
    if tissue is not None:
        data["tissue"] = {"names": list(tissue.names), "kinds": _text(np.asarray(tissue.kinds, dtype=np.uint8))}
    if scan is not None:
        data["scan"] = {"bounds": _rectangle(scan.bounds), "zoom": scan.zoom, "size": list(scan.zoom_size)}
        data["pictures"] = {str(tile): data_uri(content) for tile, content in scan.tiles.items()}
    return data


def _column(values: NDArray[np.float64]) -> Json:
    """Return numbers as `first + step * whole number` where that fits 16 bits, which tiles on a grid do."""
    first = float(values.min())
    differences = np.unique(values - first)
    integral = bool(np.all(differences == differences.round()))
    step = int(np.gcd.reduce(differences.astype(np.int64))) if integral and differences[-1] > 0 else 1
    if integral and differences[-1] / step <= np.iinfo(np.uint16).max:
        counted = np.asarray((values - first) / step, dtype="<u2")
        same = not counted.any()
        return {"first": first, "step": step, "count": len(values), "u2": "" if same else _text(counted)}
    return {"first": 0, "step": 1, "count": len(values), "f4": _text(np.asarray(values, dtype="<f4"))}


def _rectangle(bounds: Extent) -> list[float]:
    return [bounds.left, bounds.top, bounds.right, bounds.bottom]


def _text(values: NDArray[np.generic]) -> str:
    return b64encode(np.ascontiguousarray(values).tobytes()).decode()
