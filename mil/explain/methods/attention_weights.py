"""The model's own attention, as it is: how much of the bag each tile makes up, not what it speaks for."""

from mil.bags import Bags
from mil.errors import ConfigError
from mil.explain.explained_model import ExplainedModel
from mil.explain.methods import MethodOptions, Scored
from mil.explain.tile_scores import Method

METHOD = Method(
    name="attention",
    title="attention",
    signed=False,
    sentence="How much weight the model gives this tile. It does not say whether the tile speaks for or against, "
    "and a tile with much weight need not have changed the result.",
    unit="share of attention",
)


def score(model: ExplainedModel, bag: Bags, options: MethodOptions) -> Scored:
    """Return each tile's share of the bag, the same for every output.

    Raises:
        ConfigError: The model has no attention.
    """
    attention = model.read(bag).attention
    if attention is None:
        name = type(model.model).__name__
        raise ConfigError(f"--method attention: {name} has no attention, expected another method such as single")
    return Scored(scores=attention.double().unsqueeze(1).expand(-1, len(model.outputs)).clone())
