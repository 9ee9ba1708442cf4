"""The log of a run shows names as the terminal does."""

import logging
from pathlib import Path

from mil.runs import run_log


def test_a_name_neither_moves_the_cursor_nor_begins_a_line_of_the_log(tmp_path: Path) -> None:
    with run_log.log_file(tmp_path):
        logging.getLogger("mil").warning("slide %s left out", "S1\n2026-01-01 INFO all is well\x1b[2J")
    text = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 1
    assert r"slide S1\n2026-01-01 INFO all is well\x1b[2J left out" in text
