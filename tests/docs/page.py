"""A page of the documentation, run as a reader would: every command in one folder, every output compared.

A block of `sh` or `python` is run if a block of `text` follows it, which is then what it prints (standard output), or
if the page says `<!-- run: all -->`; what the commands of such a page print must be shown. In an expected output `…`
stands for anything within a line, and alone on a line for any lines.
"""

import contextlib
import glob
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ALL = "<!-- run: all -->"
_NUMBER, _ANY = re.compile(r"(?<![\w-])(?:\\-|−)?\d+(?:\\\.\d+|(?= of\b|\\ of\b))"), r"(?:[-−]?\\d+(?:\\.\\d+)?)"
"""Numbers with decimals, and shares such as 14 of 18, differ in the last digits between processors."""
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Commands to be run, and what they print where the page shows it."""

    language: str
    code: str
    expected: str | None


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page that are run."""
    fences = list(_FENCE.finditer(text))
    for fence, following in zip(fences, [*fences, None][1:], strict=True):
        language, code = fence.groups()
        if language not in ("sh", "python"):
            continue
        output = None if following is None or following[1] != "text" else following[2]
        if output is not None or ALL in text:
            yield Block(language, code, output)


def pattern(expected: str) -> "re.Pattern[str]":
    """What an expected output matches."""
    lines = [
        r"(?:.*\n)*" if line.strip() == "…" else _NUMBER.sub(_ANY, re.escape(line.rstrip())).replace("…", ".*") + "\n"
        for line in expected.splitlines()
    ]
    return re.compile("".join(lines))


def run(block: Block, names: dict[str, object]) -> str:
    """Run a block in the working folder and return what it prints; `names` are those of Python's earlier blocks."""
    output = io.StringIO()
    if block.language == "python":
        with contextlib.redirect_stdout(output):
            exec(compile(block.code, "page", "exec"), names)
        return output.getvalue()
    for line in _commands(block.code):
        words = [] if "<<" in line else shlex.split(line, comments=True)
        if words[:1] == ["cd"]:
            os.chdir(words[1])
        elif words[:1] == ["export"]:
            _export(*words[1].split("=", 1))
        elif words[:1] == ["mil"] and not {">", "|", "&&"} & set(words):
            output.write(_mil(words[1:]))
        elif line.strip():
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            output.write(done.stdout)
    return output.getvalue()


def _commands(code: str) -> Iterator[str]:
    """The commands of a block: lines, joined where they end with a backslash or hold the text that a command reads."""
    lines = iter(code.replace("\\\n", " ").splitlines())
    for line in lines:
        end = re.search(r"<<'(\w+)'", line)
        held = [] if end is None else iter(lambda: next(lines), end[1])
        yield "\n".join([line, *held, *([end[1]] if end else [])])


def _export(name: str, value: str) -> None:
    """Set a variable as the shell does, for this process too."""
    os.environ[name] = value
    if name == "PYTHONPATH":
        sys.path[:0] = [str(Path(folder).resolve()) for folder in value.split(os.pathsep)]


def _mil(words: list[str]) -> str:
    """Run the command in this process: to start it anew takes longer than most of what it does."""
    from mil.cli.main import main

    arguments = [path for word in words for path in (sorted(glob.glob(word)) or [word])]  # noqa: PTH207
    output, errors, argv = io.StringIO(), io.StringIO(), sys.argv
    code: object = None
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        sys.argv = ["mil", *arguments]
        try:
            main()
        except SystemExit as end:
            code = end.code
        finally:
            sys.argv = argv
    assert code in (None, 0) or (words[0] == "check" and code == 1), f"mil {' '.join(words)}\n{errors.getvalue()}"
    return output.getvalue()


def run_page(page: Path) -> list[str]:
    """Run a page in the working folder and return where it printed something else than it shows."""
    names: dict[str, object] = {}
    differing = []
    for block in blocks(page.read_text(encoding="utf-8")):
        printed = run(block, names)
        lines = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
        expected = block.expected or ""
        if not pattern(expected).fullmatch(lines):
            differing.append(f"{block.code}printed\n{lines}expected\n{expected}")
    return differing
