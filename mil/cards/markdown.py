"""Plain text as Markdown in which nothing of it is markup, whoever wrote it."""

import re

_CHARACTERS = {ord(found): f"&#{ord(found)};" for found in "|`*[]~$\\"} | {ord("<"): "&lt;"}
_ENTITY = re.compile(r"&(?=#?\w+;)")
_EDGE = re.compile(r"(?<![^\W_])_+|_+(?![^\W_])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_START = re.compile(r"[#>]|[+=-](?=[\s+=-]|$)|\d+(?=[.)](?:\s|$))")
_URL = re.compile(r"https://[^\s<>()\[\]|`\"'\\]+")
_PLAIN = re.compile(r"[^`|<>&\\\x00-\x1f]+")
_DOI = re.compile(r"10\.\d{4,9}/[^\s<>()\[\]|`\"'\\]+")


def escaped(value: object) -> str:
    """One line that every Markdown reader shows as it is written, in a paragraph, a list or a table's cell."""
    text = _CONTROL.sub(" ", str(value)).strip()
    text = _ENTITY.sub("&amp;", text).translate(_CHARACTERS)
    text = _EDGE.sub(lambda found: "&#95;" * len(found[0]), text)
    return (
        _START.sub(lambda found: f"&#{ord(found[0][0])};{found[0][1:]}", text, count=1) if _START.match(text) else text
    )


def code(value: object) -> str:
    """In the typeface of code, as far as it can be."""
    text = str(value)
    return f"`{text}`" if _PLAIN.fullmatch(text) else escaped(text)


def link(text: str, address: str | None) -> str:
    """A link where the address is one (https, or a DOI); else the address is plain text beside it."""
    if not address:
        return escaped(text)
    if _DOI.fullmatch(address):
        return f"{escaped(text)} [doi:{escaped(address)}](https://doi.org/{address})"
    if _URL.fullmatch(address):
        return f"{escaped(text)} [{escaped(address)}]({address})"
    return f"{escaped(text)} ({escaped(address)})"


def anchor(heading: str) -> str:
    """What model hubs and forges make of a heading, to link to it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
