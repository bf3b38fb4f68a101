"""The published procedure as published: the oracle for preset ``paper``.

Everything of arXiv 2404.12920's released code, one image and one phrase at a time, and nothing
saved: all 334 steps, the empty prompt and the phrase as a batch of two, explicit attention
probabilities in every cross-attention layer, every map scaled, enlarged and averaged. Written
against torch, diffusers' own schedule and numpy; it shares no code with the package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers.models.attention_processor import AttnProcessor
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from numpy.typing import NDArray

LAYERS = (3, 4, 6, 7)


class Explicit(AttnProcessor):
    """diffusers' unfused attention, keeping the probabilities of every call in ``seen``."""

    def __init__(self, seen: list[torch.Tensor]) -> None:
        super().__init__()
        self.seen = seen

    def __call__(self, attn: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        scores = attn.get_attention_scores

        def keep(*inputs: Any) -> torch.Tensor:
            probability = scores(*inputs)
            # (rows * heads, positions, tokens) as (rows, heads, positions, tokens)
            self.seen.append(probability.view(-1, attn.heads, *probability.shape[1:]))
            return probability

        attn.get_attention_scores = keep
        try:
            return super().__call__(attn, hidden_states, *args, **kwargs)
        finally:
            del attn.get_attention_scores


@contextmanager
def explicit_attention(unet: Any) -> Iterator[list[torch.Tensor]]:
    """Unfused attention, with the cross-attention's probabilities appended to the list yielded."""
    seen: list[torch.Tensor] = []
    before = dict(unet.attn_processors)
    explicit = Explicit(seen)
    unet.set_attn_processor(
        {name: explicit if ".attn2." in name else AttnProcessor() for name in before}
    )
    try:
        yield seen
    finally:
        unet.set_attn_processor(before)


def capture(unet: Any, *inputs: Any, **kwargs: Any) -> list[torch.Tensor]:
    """Probabilities ``(B, heads, positions, tokens)`` of all cross-attention, in call order."""
    with explicit_attention(unet) as seen:
        unet(*inputs, **kwargs)
    return seen


@torch.no_grad()
def heatmap(
    model: Any,
    scheduler: dict[str, Any],
    pixels: NDArray[np.float32],
    phrase: str,
    *,
    steps: int = 300,
    window: tuple[int, int] = (120, 180),
    layers: Sequence[int] = LAYERS,
    mask: bool = True,
) -> NDArray[Any]:
    """The published heatmap ``(S, S)`` of one square image ``(S, S)`` in [0, 1].

    Without ``mask`` the background stays. Otsu's threshold is a bin of a histogram: where two are
    equally good, rounding in the eighth digit decides, and a comparison of the masked maps fails.
    """
    ids = [_ids(model, text) for text in ("", phrase)]
    length = len(model.tokenizer(phrase)["input_ids"])
    hide = {"attention_mask": torch.stack([mask for _, mask in ids])}
    context = model.text_encoder(
        torch.stack([row for row, _ in ids]), **(hide if model.card.pass_attention_mask else {})
    )[0]
    z = _latent(model, pixels)
    settings = {key: value for key, value in scheduler.items() if key != "_class_name"}
    alpha_bar = DDIMScheduler(**settings).alphas_cumprod
    ratio = 1000 // steps
    times = list(reversed([t - 1 for t in range(1000, 0, -ratio)]))
    side = pixels.shape[0]
    collected = []
    with explicit_attention(model.denoiser) as seen:
        for index, t in enumerate(times):
            both = torch.cat([z, z])
            seen.clear()
            out = model.denoiser(both, t, encoder_hidden_states=context).sample
            if window[0] <= index < window[1]:
                collected += [_one_map(seen[layer], length, side) for layer in layers]
            guidance = 0
            out = out[:1] + guidance * (out[1:] - out[:1])
            past = alpha_bar[t - ratio] if t - ratio >= 0 else torch.tensor(1.0)
            if scheduler.get("prediction_type", "epsilon") == "v_prediction":
                clean = past.sqrt() * z - (1 - past).sqrt() * out
                noise = past.sqrt() * out + (1 - past).sqrt() * z
            else:
                clean = (z - (1 - past).sqrt() * out) / past.sqrt()
                noise = out
            z = alpha_bar[t].sqrt() * clean + (1 - alpha_bar[t]).sqrt() * noise
    heat = _minmax(_gaussian(torch.cat(collected).mean(0).numpy(), 2.5 * side / 512))
    return np.where(heat > _otsu(heat), heat, 0).astype(np.float32) if mask else heat


def _ids(model: Any, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    length = model.card.text_length or 77
    encoded = model.tokenizer(
        text, padding="max_length", max_length=length, return_attention_mask=True
    )
    return torch.tensor(encoded["input_ids"]), torch.tensor(encoded["attention_mask"])


def _latent(model: Any, pixels: NDArray[np.float32]) -> torch.Tensor:
    image = torch.from_numpy(pixels)[None, None]
    if model.card.image_range == "-1..1":
        image = image * 2 - 1
    image = image.repeat(1, model.vae.config.in_channels, 1, 1)
    encoded = model.vae.encode(image)
    mean = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mean
    return mean * model.vae.config.scaling_factor


def _one_map(probability: torch.Tensor, length: int, side: int) -> torch.Tensor:
    """One layer at one step: the phrase's row, heads and tokens averaged, scaled, enlarged."""
    tokens = probability[1].mean(dim=0)[:, 1 : length - 1].mean(dim=1)
    grid = round(len(tokens) ** 0.5)
    scaled = (tokens - tokens.min()) / (tokens.max() - tokens.min())
    return F.interpolate(scaled.view(1, 1, grid, grid), size=(side, side), mode="bilinear")[0]


def _gaussian(heat: NDArray[np.float32], sigma: float) -> NDArray[np.float64]:
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    wide = np.pad(heat.astype(np.float64), radius, mode="symmetric")
    rows = np.stack([np.convolve(row, kernel, mode="valid") for row in wide])
    return np.stack([np.convolve(column, kernel, mode="valid") for column in rows.T]).T


def _minmax(heat: NDArray[np.float64]) -> NDArray[np.float64]:
    return (heat - heat.min()) / (heat.max() - heat.min())


def _otsu(heat: NDArray[np.float64]) -> float:
    """Least variance within the classes, tried bin by bin (the package maximises that between)."""
    bins = np.minimum((heat * 256).astype(int), 255).ravel()
    centres = (bins + 0.5) / 256
    within = []
    for last in range(255):
        low, high = centres[bins <= last], centres[bins > last]
        within.append(len(low) * low.var() + len(high) * high.var())
    return (int(np.argmin(within)) + 0.5) / 256
