"""What a tool says is text on its card: markup is escaped, and only what is safe to follow becomes a link."""

import pytest

from mil.cards.markdown import code, escaped, link


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("H&E or HES", "H&E or HES"),
        ("0.95 (0.9 to 1)", "0.95 (0.9 to 1)"),
        ("-0.5", "-0.5"),
        ("p_MSI-H", "p_MSI-H"),
        ("- x", "&#45; x"),
        ("1. x", "&#49;. x"),
        ("a\nb", "a b"),
        ("__a__", "&#95;&#95;a&#95;&#95;"),
        ("&lt;", "&amp;lt;"),
    ],
)
def test_plain_text_is_left_as_it_is_and_markup_is_not(given: str, expected: str) -> None:
    assert escaped(given) == expected


def test_only_https_addresses_and_dois_become_links() -> None:
    assert link("A", "10.1038/s41467-023-42453-6").endswith("(https://doi.org/10.1038/s41467-023-42453-6)")
    assert link("A", "https://example.org/a_b").endswith("(https://example.org/a_b)")
    for odd in ("javascript:alert(1)", "http://example.org", "https://x.y/)[z](w", "an abstract"):
        assert "](" not in link("A", odd)
    assert code("a`b") == "a&#96;b"
