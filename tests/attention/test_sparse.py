"""Sparse reading: exact by its conditions of optimality and by bisection, and only read."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from scipy.optimize import bisect

from cxrg.attention.layers import cross_attention_layers
from cxrg.attention.sparse import entmax15, probabilities, sparsemax
from cxrg.attention.watch import attention_to, watch
from cxrg.model.conditioning import Conditioning
from cxrg.model.load import load
from tests.fakes import tiny_models

RULES = {"entmax15": (entmax15, 1.5), "sparsemax": (sparsemax, 2.0)}


def by_bisection(scores: np.ndarray, alpha: float) -> np.ndarray:
    """alpha-entmax ``[(alpha - 1) z - tau]_+ ^ (1 / (alpha - 1))`` with tau found numerically."""
    z = (alpha - 1) * scores

    def surplus(tau: float) -> float:
        return float((np.maximum(z - tau, 0) ** (1 / (alpha - 1))).sum() - 1)

    tau = bisect(surplus, z.max() - 1, z.max(), xtol=1e-14)
    return np.maximum(z - tau, 0) ** (1 / (alpha - 1))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_equals_the_threshold_found_by_bisection(name: str, spread: float) -> None:
    rule, alpha = RULES[name]
    scores = spread * torch.randn(40, 77, generator=torch.Generator().manual_seed(0))
    scores[:3, 10:40] = scores[:3, :1]  # ties
    found = rule(scores)
    expected = [by_bisection(row, alpha) for row in scores.double().numpy()]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)
    torch.testing.assert_close(found.sum(-1), torch.ones(40))
    assert (found >= 0).all()


def test_no_other_distribution_is_better() -> None:
    # sparsemax minimises |p - z|^2; entmax15 maximises p.z + H(p), H = (1 - sum p^1.5) / 0.75.
    generator = torch.Generator().manual_seed(1)
    z = 2 * torch.randn(6, generator=generator, dtype=torch.float64)
    others = torch.distributions.Dirichlet(torch.full((6,), 0.3, dtype=torch.float64))
    torch.manual_seed(0)
    tried = others.sample((20000,))
    near = 0.999 * torch.stack([entmax15(z), sparsemax(z)])[:, None] + 0.001 * tried
    tried = torch.cat([tried, *near])

    def gain(p: torch.Tensor) -> torch.Tensor:
        return p @ z + (1 - p.pow(1.5).sum(-1)) / 0.75

    assert gain(entmax15(z)) >= gain(tried).max()
    assert (sparsemax(z) - z).square().sum() <= (tried - z).square().sum(-1).min()


def test_positions_that_prefer_another_token_get_exactly_nothing() -> None:
    query = torch.zeros(1, 4, 2)
    query[0, :, 0] = torch.tensor([-6.0, -6.0, 6.0, 6.0])
    key = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]])
    weights = torch.tensor([[1.0, 0.0, 0.0]])
    for sparse in ("off", "entmax15", "sparsemax"):
        (found,) = attention_to(query, key, weights, heads=1, scale=1.0, sparse=sparse)
        assert found[2:].min() > 0.99
        assert (found[:2] == 0).all() == (sparse != "off")
    scores = torch.randn(5, 7)
    assert torch.equal(probabilities(scores, "off"), torch.softmax(scores, -1))


@pytest.mark.parametrize("sparse", ["entmax15", "sparsemax"])
def test_the_network_runs_as_ever(sparse: Literal["entmax15", "sparsemax"], tmp_path) -> None:
    model = load(tiny_models.sd2(tmp_path / "sd2"), device="cpu")
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 4, 8, 8, generator=generator)
    conditioning = Conditioning(embeds=torch.randn(2, 9, tiny_models.WIDTH, generator=generator))
    names = [layer.name for layer in cross_attention_layers(model.denoiser, 8)]
    plain = model.denoise(z, 300, conditioning)
    maps = {}
    kinds: tuple[Literal["off", "entmax15", "sparsemax"], ...] = ("off", sparse)
    for kind in kinds:
        with watch(model.denoiser, names, torch.rand(2, 9), sparse=kind) as recorder:
            assert torch.equal(model.denoise(z, 300, conditioning), plain)
        maps[kind] = recorder.maps
    assert not any(torch.equal(maps["off"][name], maps[sparse][name]) for name in names)
