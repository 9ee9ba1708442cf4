"""Escape plain text so that nothing in it is Markdown markup, whoever wrote it."""

import re

_CHARACTERS = {ord(character): f"&#{ord(character)};" for character in "|`*[]~$\\"} | {ord("<"): "&lt;"}
_ENTITY = re.compile(r"&(?=#?\w+;)")
_EDGE = re.compile(r"(?<![^\W_])_+|_+(?![^\W_])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_START = re.compile(r"[#>]|[+=-](?=[\s+=-]|$)|\d+(?=[.)](?:\s|$))")
_URL = re.compile(r"https://[^\s<>()\[\]|`\"'\\]+")
_PLAIN = re.compile(r"[^`|<>&\\\x00-\x1f]+")
_DOI = re.compile(r"10\.\d{4,9}/[^\s<>()\[\]|`\"'\\]+")


def escaped(value: object) -> str:
    """Return one line that Markdown shows as written, in a paragraph, a list or a table cell."""
    text = _CONTROL.sub(" ", str(value)).strip()
    text = _ENTITY.sub("&amp;", text).translate(_CHARACTERS)
    text = _EDGE.sub(lambda match: "&#95;" * len(match[0]), text)
    start = _START.match(text)
    return f"&#{ord(text[0])};{text[1:]}" if start else text


def code(value: object) -> str:
    """Return the text as code if its characters allow it, otherwise escaped."""
    text = str(value)
    return f"`{text}`" if _PLAIN.fullmatch(text) else escaped(text)


def link(text: str, address: str | None) -> str:
    """Return a link if the address is a DOI or https, otherwise text and address as plain text."""
    if not address:
        return escaped(text)
    if (linked := target(address)) is None:
        return f"{escaped(text)} ({escaped(address)})"
    label, url = linked
    return f"{escaped(text)} [{escaped(label)}]({url})"


def target(address: str | None) -> tuple[str, str] | None:
    """Return label and URL of a DOI or an https address; None for an address that is not safe to follow."""
    if address and _DOI.fullmatch(address):
        return f"doi:{address}", f"https://doi.org/{address}"
    return (address, address) if address and _URL.fullmatch(address) else None


def anchor(heading: str) -> str:
    """Return the anchor that model hubs and forges give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
