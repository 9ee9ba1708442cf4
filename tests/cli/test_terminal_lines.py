"""What names hold is printed as it is, and neither moves the cursor nor becomes a picture."""

import pytest
from rich.table import Table

from mil.cli.terminal_lines import add_row, print_tables, write_lines


def test_names_are_no_markup_no_emoji_and_no_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("run", box=None, pad_edge=False)
    for name in ("a:b:c", "runs[red]x[/red]", ":smile:", "x\x1b[2Jy", "a\u202eb"):
        add_row(table, [name])
    print_tables("first", table)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["first", "run", "a:b:c", "runs[red]x[/red]", ":smile:", "x\\x1b[2Jy", "a\\u202eb"]


def test_lines_keep_their_breaks_and_escape_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    write_lines("AUROC 0.9\nCases 3", "\x1b]52;c;ZXZpbA==\x07", 3)
    assert capsys.readouterr().out == "AUROC 0.9\nCases 3\n\\x1b]52;c;ZXZpbA==\\x07\n3\n"
