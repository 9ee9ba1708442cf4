"""Whether the encoder has seen the cohort before."""

from collections import Counter
from collections.abc import Collection

from mil.features.encoders import Encoder, folded
from mil.slide_names import family
from mil.study.findings import Finding


def seen(encoder: Encoder, slides: Collection[str], name: str | None = None) -> list[Finding]:
    """Slides of public cohorts that the encoder was pretrained on: results on them are not external to it.

    Args:
        encoder: With the cohorts it has seen.
        slides: Ids, of which those of public cohorts are known by their form.
        name: What the user calls the cohort, where ids do not tell.
    """
    amounts = Counter(known for slide in slides if (known := family(slide)))
    found = []
    for cohort in encoder.pretrained_on:
        whole = cohort.partition("-")[0]  # TCGA-COAD is a part of TCGA, and barcodes do not say which
        count = next((amount for known, amount in amounts.items() if folded(known) == folded(whole)), 0)
        if name is not None and folded(name) in (folded(cohort), folded(whole)):
            count = len(slides)
        if count:
            message = (
                f"encoder '{encoder.name}' was pretrained on {cohort}, and {count} of {len(slides)} slides look like "
                f"{whole}'s: what is reported of them is not external"
            )
            found.append(Finding("warning", "seen-by-encoder", message, count))
    return found
