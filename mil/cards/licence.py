"""The licence of the weights, a text of its own in every checkpoint."""

from mil.cards.card_facts import Facts

_TEXT = """\
Licence of the weights of {name} {version}: research use only

{banner}

The weights (weights.safetensors) and what was fitted with them (manifest.json) may be used, copied, changed and passed
on, in whole or in part, for research, teaching and the testing of software, free of charge, provided that:

1. this text goes with every copy, changed or not, and changes are stated;
2. they are not used for the diagnosis, treatment, screening or counselling of patients, nor in a product or service
   that does so;
3. results that are published name the tool and its version, and say that the weights are for research use only.

{data}

The weights are provided as they are, without any warranty, express or implied, of merchantability, of fitness for a
purpose or of non-infringement. Nobody who made or passed on the weights is liable for harm or damage from their use.

The code that made and reads them is licensed apart, under the Apache License 2.0.
"""


def licence_text(facts: Facts) -> str:
    """Return the licence of a checkpoint's weights."""
    data = facts.choose(
        "They were trained on simulated features. No patient's data are in them.",
        "They were trained on data of patients. Whoever has a copy may not try to identify a patient from it, and the "
        "terms\nunder which the training site lent its data hold besides this text.",
    )
    return _TEXT.format(name=facts.tool.name, version=facts.tool.version, banner=facts.banner, data=data)
