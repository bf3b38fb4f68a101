"""Generate to Ground as released, by its whole tensor: the oracle for preset ``gen2ground``.

arXiv 2507.12236: the maps of all steps, layers and tokens are kept, ``(steps, layers, tokens, n,
n)``, and all formulae are taken from it word by word. Written against torch, diffusers' own
schedule, numpy and scikit-learn; it shares no code with the package. Only the random draws are made
in the package's order, since they decide the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from tests.oracles.naive import explicit_attention

STEPS, LAST = 50, 40


def scheduler(config: dict[str, Any]) -> DDIMScheduler:
    """Stable Diffusion 1.5's schedule as diffusers' DDIM reads it."""
    facts = {key: value for key, value in config.items() if not key.startswith("_")}
    ddim = DDIMScheduler(**facts, clip_sample=False)
    ddim.set_timesteps(STEPS)
    return ddim


@torch.no_grad()
def real_maps(
    model: Any, ddim: DDIMScheduler, pixels: NDArray[np.float32], phrase: str, seed: int
) -> NDArray[np.float32]:
    """Pass R ``(steps, layers, tokens, n, n)``, from noisy to clean."""
    image = (torch.from_numpy(pixels)[None, None] * 2 - 1).repeat(1, 3, 1, 1)
    posterior = model.vae.encode(image).latent_dist
    conditioning = torch.cat([_conditioning(model, ""), _conditioning(model, phrase)])
    generator = torch.Generator().manual_seed(seed)
    shape = posterior.mean.shape[1:]
    draws = {t: torch.randn((2, 1, *shape), generator=generator) for t in _ascending(ddim)}
    maps = []
    with explicit_attention(model.denoiser) as seen:
        for t in ddim.timesteps.tolist():
            first, second = draws[t]
            z0 = (posterior.mean + posterior.std * first) * 0.18215
            z = ddim.add_noise(z0, second, cast(Any, torch.tensor([t])))
            seen.clear()
            model.denoiser(torch.cat([z, z]), t, encoder_hidden_states=conditioning)
            maps.append(_repeated(seen, z.shape[-1]))
    return np.stack(maps)


@torch.no_grad()
def free_maps(model: Any, ddim: DDIMScheduler, phrase: str, seed: int) -> NDArray[np.float32]:
    """Pass F ``(steps, layers, tokens, n, n)``, from noisy to clean."""
    conditioning = torch.cat([_conditioning(model, ""), _conditioning(model, phrase)])
    n = model.denoiser.config.sample_size
    z = torch.randn((1, 4, n, n), generator=torch.Generator().manual_seed(seed))
    maps = []
    with explicit_attention(model.denoiser) as seen:
        for t in ddim.timesteps:
            seen.clear()
            both = model.denoiser(torch.cat([z, z]), t, encoder_hidden_states=conditioning).sample
            maps.append(_repeated(seen, n))
            out = both[:1] + 16 * (both[1:] - both[:1])
            z = cast(Any, ddim.step(out, t, z)).prev_sample
    return np.stack(maps)


def heatmap(
    real: NDArray[np.float32],
    free: NDArray[np.float32] | None,
    words: Sequence[int],
) -> NDArray[np.float64]:
    """The map ``(n, n)`` in [0, 1] of the tokens at positions ``words``."""
    plain = minmax(real[-LAST:, :, words].astype(np.float64).mean((0, 1, 2)))
    if free is None:
        return plain
    start = real[:, :, 0].astype(np.float64)
    total = np.zeros_like(plain)
    for step in range(real.shape[0]):
        for layer in range(real.shape[1]):
            for k in words:
                other = free[step, layer, k].astype(np.float64)
                one = start[step, layer]
                total += one @ other
    image = to_bytes(start.mean((0, 1)))
    text = to_bytes(free[:, :, words].astype(np.float64).mean((0, 1, 2)))
    s = max(0.0, ssim(image, text))
    m = minmax(to_bytes(total).astype(np.float64))
    union = (m + plain + m * plain) / 2
    return minmax((1 - s) ** 2 * plain + s**2 * m + 2 * s * (1 - s) * union)


def mask(heat: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The mixture's mask of a map (64, 64)."""
    mixture = GaussianMixture(2, random_state=0).fit(heat.reshape(-1, 1))
    raw = heat > mixture.means_.mean()
    clean = raw.copy()
    for y in range(1, len(heat) - 1):
        for x in range(1, len(heat) - 1):
            clean[y, x] = raw[y - 1 : y + 2, x - 1 : x + 2].mean() >= 0.5
    return clean


def ssim(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Wang et al. 2004 with windows of 7 x 7, sample covariance, range 255."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for y in range(len(a) - 6):
        for x in range(len(a) - 6):
            u, v = a[y : y + 7, x : x + 7].ravel(), b[y : y + 7, x : x + 7].ravel()
            both = np.cov(u, v)
            means = (2 * u.mean() * v.mean() + c1) / (u.mean() ** 2 + v.mean() ** 2 + c1)
            spread = (2 * both[0, 1] + c2) / (both[0, 0] + both[1, 1] + c2)
            values.append(means * spread)
    return float(np.mean(values))


def minmax(heat: NDArray[np.float64]) -> NDArray[np.float64]:
    span = heat.max() - heat.min()
    return (heat - heat.min()) / span if span > 0 else np.zeros_like(heat)


def to_bytes(heat: NDArray[np.float64]) -> NDArray[np.uint8]:
    return (minmax(heat) * 255).astype(np.uint8)


def _ascending(ddim: DDIMScheduler) -> list[int]:
    return sorted(ddim.timesteps.tolist())


def _conditioning(model: Any, text: str) -> torch.Tensor:
    encoded = model.tokenizer(
        text, padding="max_length", max_length=77, return_attention_mask=True, return_tensors="pt"
    )
    hidden = model.text_encoder(encoded["input_ids"], attention_mask=encoded["attention_mask"])
    return hidden.last_hidden_state


def _repeated(seen: list[torch.Tensor], n: int) -> NDArray[np.float32]:
    """The phrase's row ``(layers, tokens, n, n)``: heads averaged, every value repeated."""
    maps = []
    for probability in seen:
        tokens = probability[1].mean(0).T
        side = round(tokens.shape[1] ** 0.5)
        small = tokens.reshape(-1, side, side).numpy()
        maps.append(small.repeat(n // side, axis=1).repeat(n // side, axis=2))
    return np.stack(maps)
