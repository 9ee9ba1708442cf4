"""Draw the rooms and layers of the package from the contract that import-linter checks.

usage: scripts/docs_pictures.py      writes docs/images/layers.svg; a test compares it with what the contract gives
"""

import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "layers.svg"
WIDTH, HEIGHT, GAP, LEFT = 1000, 34, 8, 60
"""Pixels of the picture, of a box, between boxes, and of the arrow's margin."""
SHADES = ("#dbe9f4", "#eef3f7")


def layers() -> list[list[str]]:
    """Return the layers of the package from the top, each with its rooms."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    drawn = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [layer.split(" | ") for layer in drawn if layer != "__main__"]


def picture(rows: list[list[str]]) -> str:
    """Return the layers as SVG: a row each, a box for each room, an arrow for the direction of imports."""
    height = len(rows) * (HEIGHT + GAP) + 2 * GAP
    names = "; ".join(" | ".join(row) for row in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="sans-serif">',
        f"<title>Layers from the top: {escape(names)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<path d="M24 {2 * GAP} V{height - 3 * GAP} m-7 -10 l7 10 l7 -10" '
        'fill="none" stroke="#444" stroke-width="2"/>',
        f'<text x="44" y="{height // 2}" font-size="14" fill="#333" text-anchor="middle" '
        f'transform="rotate(-90 44 {height // 2})">imports point down</text>',
    ]
    for number, row in enumerate(rows):
        top = GAP + number * (HEIGHT + GAP)
        width = (WIDTH - LEFT - GAP * len(row)) / len(row)
        for place, room in enumerate(row):
            left = LEFT + place * (width + GAP)
            parts.append(
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{HEIGHT}" rx="5" '
                f'fill="{SHADES[number % 2]}" stroke="#5b7083"/>'
            )
            parts.append(
                f'<text x="{left + width / 2:.1f}" y="{top + HEIGHT / 2 + 5}" font-size="15" fill="#16222c" '
                f'text-anchor="middle">{escape(room)}</text>'
            )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(picture(layers()), encoding="utf-8")
