"""A tool: its question, what is fitted for it, and what its report and card state.

`conf/tool/*.yaml` holds the tools of the zoo; each manifest holds the tool that it was trained for.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mil.errors import ConfigError
from mil.fitted.rules import is_share
from mil.fitted.specification import Specification
from mil.study.component import Component, Config, Options, Positive, Text


class TileSize(Config):
    """The size of tiles that a tool expects."""

    mpp: Positive | None = None
    tile_px: Positive | None = None


def _listed(stated: object) -> object:
    """Return a single name as a list of one."""
    return [stated] if isinstance(stated, str | int | float) and not isinstance(stated, bool) else stated


class ClinicalInputs(Config):
    """Columns of the clinical table that the model reads together with the tiles."""

    numeric: Annotated[list[Text] | None, BeforeValidator(_listed)] = None
    categorical: dict[str, list[Any]] | None = None
    fusion: Literal["late", "gated"] = "late"


class ClinicalVariables(BaseModel):
    """Columns of the clinical table to which a report compares the model, and which it adds to its score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] | dict[str, tuple[str | int | float, ...] | None] = ()
    """names, or the levels of each; by name alone all words of the column are levels"""


class PublishedWork(BaseModel):
    """Something that was published, with where it can be read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    doi: str | None = None
    url: str | None = None
    source: str | None = None


class Evidence(BaseModel):
    """What published work supports for tools of this kind.

    Attributes:
        kind: Class of the ESMO framework for AI biomarkers, A to C2; its key is `class`.
        tier: The tier that published work could support, 1 the best.
        note: How the class is to be read.
        performance: Figures of comparable tools; none of ours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    kind: str | None = Field(default=None, alias="class")
    tier: int | None = None
    note: str | None = None
    performance: tuple[PublishedWork, ...] = ()


class Summary(BaseModel):
    """A tool in one line, in two languages.

    Attributes:
        en: In English.
        fr: In French.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    en: str | None = None
    fr: str | None = None


def _prevalences(stated: object) -> object:
    shares = stated if isinstance(stated, list | tuple) else [] if stated is None else [stated]
    for share in shares:
        if not is_share(share) or not 0 < share < 1:
            raise ConfigError(f"prevalences: {share!r}, expected shares between 0 and 1")
    return shares


def _thresholds(stated: object) -> object:
    shares = stated if isinstance(stated, list | tuple) or stated is None else [stated]
    if shares is not None and not (shares and all(is_share(share) and 0 < share < 1 for share in shares)):
        raise ConfigError(f"thresholds: {stated!r}, expected a list of shares between 0 and 1")
    return shares


class Tool(Specification):
    """A tool of the zoo, or a question of one's own.

    Texts are stated in plain sentences; what is left out, a card says is missing. Keys of one's own are kept.

    Attributes:
        name: Short name, such as `msi-crc`.
        version: Version of the released tool, X.Y.Z.
        title: What the tool does, as a heading.
        category: Heading in the index of tools: workflow, biomarker, outcome or response.
        organ: Where the tissue is from.
        specimen: Preparation and stain, such as FFPE, H&E.
        question: The clinical question, as a sentence.
        ground_truth: How the truth was established.
        intended_use: What the tool may be used for.
        users: Who uses it.
        pathway: Where it stands in the clinical pathway, and what follows each output.
        population: Whom it is meant for.
        setting: Where it is used.
        time_zero: From when times are counted.
        research_use: The sentence that restricts it to research.
        simulated_note: What a simulated cohort of this tool does not show.
        encoder_note: Which encoders suit.
        model_note: Why this model.
        out_of_scope: What it must not be used for.
        confounders: What may stand behind the score instead of the biology.
        public_cohorts: Public data for the same question.
        median_tiles: Tiles of a real slide.
        summary: The tool in one sentence; its key is `facts`.
        evidence: What published work supports.
        references: Publications.
        endpoint: What is predicted.
        tiles: Size of the tiles that the tool expects.
        covariates: Columns of the clinical table that the model reads.
        clinical: Columns of the clinical table that reports compare with.
        prevalences: Shares of positives for which predictive values are computed.
        thresholds: Probabilities at which decision curves are drawn; None takes some around the prevalence.
        times: Times at which survival is reported; empty for the endpoint's horizons.
        subgroups: Columns of the table of subgroups, besides the fixed ones.
        subgroups_wanted: Subgroups that a real cohort should be reported by.
    """

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    name: str = ""
    version: str = ""
    title: str = ""
    category: str | None = None
    organ: str | None = None
    specimen: str | None = None
    question: str | None = None
    ground_truth: str | None = None
    intended_use: str | None = None
    users: str | None = None
    pathway: str | None = None
    population: str | None = None
    setting: str | None = None
    time_zero: str | None = None
    research_use: str | None = None
    simulated_note: str | None = None
    encoder_note: str | None = None
    model_note: str | None = None
    out_of_scope: tuple[str, ...] | str = ()
    confounders: tuple[str, ...] | str = ()
    public_cohorts: tuple[str, ...] = ()
    median_tiles: int | None = None
    summary: Summary = Field(default=Summary(), alias="facts")
    evidence: Evidence = Evidence()
    references: tuple[PublishedWork, ...] = ()
    endpoint: Component[Options] | None = None
    tiles: TileSize | None = None
    covariates: ClinicalInputs | None = None
    clinical: ClinicalVariables | None = None
    prevalences: Annotated[tuple[float, ...], BeforeValidator(_prevalences)] = ()
    thresholds: Annotated[tuple[float, ...] | None, BeforeValidator(_thresholds)] = None
    times: tuple[int | float, ...] = ()
    subgroups: tuple[str, ...] = ()
    subgroups_wanted: tuple[str, ...] = ()

    @classmethod
    def parse(cls, stated: Mapping[str, object]) -> Self:
        """Return a tool from the keys of its yaml.

        Raises:
            ConfigError: a key or value that does not exist.
        """
        try:
            return cls.model_validate(dict(stated))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise ConfigError(f"tool.{key}: {first['input']!r}, expected otherwise: {first['msg']}") from None

    def plain(self) -> dict[str, Any]:
        """Return the keys that were given, as plain containers for a yaml or JSON file."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)
