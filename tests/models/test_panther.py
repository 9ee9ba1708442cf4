"""PANTHER's mixture against the authors' code, and its prototypes."""

import pytest
import torch
from sklearn.cluster import KMeans

from mil.bags import Bags
from mil.layers.kmeans import kmeans
from mil.models.panther import Panther

from .reference import golden
from .zoo import IN_DIM, simulated


@pytest.mark.parametrize(("iterations", "prior"), [(1, 0.001), (3, 1.0)])
def test_representation_matches_the_authors_code(iterations: int, prior: float) -> None:
    arrays, _ = golden("panther")
    model = Panther(5, 2, 3, iterations, prior, variance=0.5).double().eval()
    model.prototypes.copy_(arrays["prototypes"])
    output = model(Bags(arrays["features"], (21,)))
    expected = arrays[f"{iterations}.representation"]
    torch.testing.assert_close(output.embedding[0], expected, rtol=1e-7, atol=1e-9)  # their constant 2 pi is single
    belongs = arrays[f"{iterations}.responsibility"]
    torch.testing.assert_close(output.extra["prototypes"], belongs, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(output.logits, model.head(output.embedding))


def test_a_shared_layer_may_read_each_prototype() -> None:
    model, bags = Panther(IN_DIM, 2, 3, hidden_dim=4).double().eval(), simulated((6, 1), 0, torch.float64)
    output = model(bags)
    weight, mean, variance = output.embedding.split([3, 3 * IN_DIM, 3 * IN_DIM], dim=1)
    assert model.hidden is not None
    each = [
        model.hidden(
            torch.cat([weight[:, [k]], mean[:, k * IN_DIM :][:, :IN_DIM], variance[:, k * IN_DIM :][:, :IN_DIM]], 1)
        )
        for k in range(3)
    ]
    torch.testing.assert_close(output.logits, model.head(torch.cat(each, 1)))


def test_prototypes_are_centres_as_good_as_those_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    places = 8 * torch.randn(6, 4, generator=generator)
    rows = places.repeat(50, 1) + torch.randn(300, 4, generator=generator)
    model = Panther(4, 1, prototypes=6)
    model.fit_tiles(rows)
    inertia = torch.cdist(rows, model.prototypes).square().amin(1).sum()
    reference = KMeans(6, n_init=10, random_state=0).fit(rows.numpy()).inertia_
    assert inertia.item() == pytest.approx(reference, rel=1e-4)
    assert torch.equal(kmeans(rows, 6), model.prototypes)
    assert "prototypes" in model.state_dict()


def test_centres_of_equal_rows_and_of_too_few() -> None:
    assert torch.equal(kmeans(torch.ones(5, 2), 3), torch.ones(3, 2))
    with pytest.raises(ValueError, match="2 tiles, expected at least one for each of 3 prototypes"):
        kmeans(torch.ones(2, 2), 3)


def test_variances_of_many_equal_tiles_are_not_negative() -> None:
    bags = Bags(torch.full((5000, IN_DIM), 7.3), (5000,))
    embedding = Panther(IN_DIM, 1, 2, iterations=5)(bags).embedding
    assert embedding.isfinite().all()
    assert (embedding[:, 2 + 2 * IN_DIM :] > 0).all()


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="0 prototypes, 1 iterations, prior"):
        Panther(IN_DIM, 1, prototypes=0)
