"""Messages of errors."""

from mil.cli.error_lines import one_line
from mil.errors import FeatureError, printable


def test_control_characters_of_names_are_shown_and_never_written() -> None:
    assert printable("x\x1b[2J\x1b[31mmil: all is well\n") == "x\\x1b[2J\\x1b[31mmil: all is well\\n"
    assert printable("Müller\u202egpj") == "Müller\\u202egpj"
    assert printable("a\u200fb\u061cc\U000e0041") == "a\\u200fb\\u061cc\\U000e0041"  # marks of direction, hidden text
    assert printable("नि\u200dक\u200c") == "नि\u200dक\u200c"  # joiners belong to words
    assert one_line(FeatureError("x\nmil: all is well: broken")) == "x\\nmil: all is well: broken"
    assert one_line(FileNotFoundError(2, "no such file", "a\x1bb")) == "a\\x1bb: no such file"
