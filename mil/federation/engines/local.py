"""Hospitals in this process: the default, and what every other engine is compared with."""

from collections.abc import Iterator, Mapping, Sequence

from mil.errors import MilError
from mil.federation.coordinator import Reply
from mil.federation.hospital import Hospital
from mil.federation.messages import FederationError, Message


class LocalEngine:
    """Calls one hospital after the other; questions and answers are the bytes that would travel."""

    def __init__(self, hospitals: Mapping[str, Hospital]) -> None:
        """Create the engine from hospitals by name."""
        self.hospitals = dict(hospitals)

    @property
    def sites(self) -> list[str]:
        """Names of the hospitals."""
        return sorted(self.hospitals)

    def ask(self, question: Message, sites: Sequence[str], seconds: float) -> Iterator[Reply]:
        """Yield the answer of each hospital, or its error."""
        content = question.to_bytes()
        for site in sites:
            yield site, answer_of(self.hospitals[site], content)


def answer_of(hospital: Hospital, content: bytes) -> Message | FederationError:
    """Return a hospital's answer to the bytes of a question, or its error, as it would arrive."""
    try:
        return Message.from_bytes(hospital.answer(Message.from_bytes(content)).to_bytes())
    except FederationError as error:
        return error
    except MilError as error:
        return FederationError(f"site {hospital.name}: {error}")
