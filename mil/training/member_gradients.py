"""Gradients of the members of an ensemble, each as if the member were trained alone.

The loss of an ensemble is the mean of its members' losses, so the gradient of a member's weights is a fraction of that
of its own loss. Weights that all members share, of covariates, get the mean gradient.
"""

from collections.abc import Callable

from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from mil.models.mil_model import MILModel
from mil.models.network_ensemble import members_of
from mil.training.summed_gradients import separate_gradients


def restore_gradients(model: MILModel) -> None:
    """Give the weights of each member the gradient of the member's own loss; other models are left as they are."""
    members = members_of(model)
    if len(members) == 1:
        return
    separate_gradients(model)
    for member in members:
        for weight in member.parameters():
            if weight.grad is not None:
                weight.grad *= len(members)


def clip_gradients(model: MILModel, limit: float, by_value: bool = False) -> None:
    """Clip the gradients of each member by their own norm, and of an ensemble those of shared weights by theirs.

    Args:
        model: Whose gradients are those of `restore_gradients`.
        limit: Largest norm, or largest absolute value.
        by_value: Whether each value is clipped.
    """
    clip: Callable[..., object] = clip_grad_value_ if by_value else clip_grad_norm_
    for weights in _groups(model):
        clip(weights, limit)


def _groups(model: MILModel) -> list[list[nn.Parameter]]:
    members = members_of(model)
    if len(members) == 1:
        return [list(model.parameters())]
    groups = [list(member.parameters()) for member in members]
    of_members = {id(weight) for weights in groups for weight in weights}
    shared = [weight for weight in model.parameters() if id(weight) not in of_members]
    return [*groups, shared] if shared else groups
