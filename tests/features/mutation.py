"""Randomly damaged files: flipped and overwritten bytes, cut ends."""

from hypothesis import strategies as st


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """Draw one of the original files with up to eight bytes changed and perhaps its end cut off."""
    content = bytearray(draw(st.sampled_from(originals), label="file"))
    for place in draw(st.lists(st.integers(0, len(content) - 1), max_size=8), label="changed"):
        content[place] = draw(st.integers(0, 255), label="to")
    length = draw(st.just(len(content)) | st.integers(0, len(content)), label="length")
    return bytes(content[:length])
