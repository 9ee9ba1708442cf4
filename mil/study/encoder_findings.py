"""Whether the encoder was pretrained on slides of the cohort."""

from collections import Counter
from collections.abc import Collection

from mil.features.encoders import Encoder, folded
from mil.findings import Finding
from mil.slide_names import family


def pretrained_on(encoder: Encoder, slides: Collection[str], name: str | None = None) -> list[Finding]:
    """Return warnings of slides of cohorts that the encoder was pretrained on: results on them are not external.

    Args:
        encoder: With the cohorts that it was pretrained on.
        slides: Ids; those of public cohorts are recognised by their form.
        name: What the user calls the cohort, where ids do not show it.
    """
    counts = Counter(folded(programme) for slide in slides if (programme := family(slide)))
    findings = []
    for cohort in encoder.pretrained_on:
        programme = cohort.partition("-")[0]  # TCGA-COAD is a part of TCGA, and barcodes do not show which
        count = counts[folded(programme)]
        if name is not None and folded(name) in (folded(cohort), folded(programme)):
            count = len(slides)
        if count:
            message = (
                f"encoder '{encoder.name}' was pretrained on {cohort}, and {count} of {len(slides)} slides look like "
                f"{programme}'s: what is reported of them is not external"
            )
            findings.append(Finding("warning", "seen-by-encoder", message, count))
    return findings
