"""The published procedure as published: the oracle for preset ``paper``.

Everything of arXiv 2404.12920's released code, one image and one phrase at a time, and nothing
saved: all 334 steps, the empty prompt and the phrase as a batch of two, explicit attention
probabilities in every cross-attention layer, every map scaled, enlarged and averaged. Carried over
to other families: Stable Diffusion XL's two encoders, PixArt's and Sana's masks, Sana's flow.
Written against torch, diffusers' own schedule and numpy; it shares no code with the package.
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
XL_LAYERS = (4, 5, 6, 7, 10, 11, 12, 13)  # the same blocks, with two layers each
MARKS = ("<|startoftext|>", "<|endoftext|>", "[CLS]", "[SEP]", "</s>", "<bos>")


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
    # Sana's self-attention is linear and has no other processor.
    plain = {
        name: before[name] if "Sana" in str(before[name]) else AttnProcessor() for name in before
    }
    unet.set_attn_processor({n: explicit if ".attn2." in n else plain[n] for n in before})
    try:
        yield seen
    finally:
        unet.set_attn_processor(before)


def capture(unet: Any, *inputs: Any, **kwargs: Any) -> list[torch.Tensor]:
    """Probabilities ``(B, heads, positions, tokens)`` of all cross-attention, in call order."""
    with explicit_attention(unet) as seen:
        unet(*inputs, **kwargs)
    return seen


def heatmap(
    model: Any,
    scheduler: dict[str, Any],
    pixels: NDArray[np.float32],
    phrase: str,
    *,
    mask: bool = True,
    **how: Any,
) -> NDArray[Any]:
    """The published heatmap ``(S, S)`` of one square image ``(S, S)`` in [0, 1].

    Without ``mask`` the background stays. Otsu's threshold is a bin of a histogram: where two are
    equally good, rounding in the eighth digit decides, and a comparison of the masked maps fails.
    """
    (mean,) = mean_maps(model, scheduler, pixels, phrase, [own_tokens(model, phrase)], **how)
    heat = _minmax(_gaussian(mean, 2.5 * pixels.shape[0] / 512))
    return np.where(heat > _otsu(heat), heat, 0).astype(np.float32) if mask else heat


def mean_maps(
    model: Any,
    scheduler: dict[str, Any],
    pixels: NDArray[np.float32],
    phrase: str,
    groups: Sequence[Sequence[int]],
    *,
    steps: int = 300,
    window: tuple[int, int] = (120, 180),
    layers: Sequence[int] = LAYERS,
) -> list[NDArray[np.float32]]:
    """For each group of tokens, by position, one map ``(S, S)``: the mean over layers and steps."""
    given = conditions(model, ["", phrase])
    z = _latent(model, pixels)
    ratio = 1000 // steps
    times = list(reversed([t - 1 for t in range(1000, 0, -ratio)]))
    if hasattr(model.denoiser, "transformer_blocks"):
        third = len(model.denoiser.transformer_blocks) // 3
        layers = range(third, 2 * third)
    if model.second is not None:
        layers = XL_LAYERS
    side = pixels.shape[0]
    collected: list[list[torch.Tensor]] = [[] for _ in groups]
    with explicit_attention(model.denoiser) as seen:
        for index, t in enumerate(times):
            seen.clear()
            label, step = _step(scheduler, t, t - ratio)
            out = model.denoiser(torch.cat([z, z]), timestep=label.expand(2), **given).sample
            if window[0] <= index < window[1]:
                for maps, own in zip(collected, groups, strict=True):
                    maps += [_one_map(seen[layer], own, side) for layer in layers]
            out = out[:, : z.shape[1]]  # the rest is a learned variance
            guidance = 0
            z = step(z, out[:1] + guidance * (out[1:] - out[:1]))
    return [torch.cat(maps).mean(0).numpy() for maps in collected]


def _step(scheduler: dict[str, Any], t: int, s: int) -> tuple[torch.Tensor, Any]:
    """What the network is told, and the step from ``s`` to ``t`` with its answer."""
    if scheduler.get("prediction_type") == "flow_prediction":
        shift = scheduler["flow_shift"]
        there, here = (shift * (u + 1) / (1000 + (shift - 1) * (u + 1)) for u in (t, max(s, -1)))
        return torch.tensor(1000 * here), lambda z, velocity: z + (there - here) * velocity
    known = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end")
    settings = {key: scheduler[key] for key in known if key in scheduler}
    alpha_bar = DDIMScheduler(**settings).alphas_cumprod
    past = alpha_bar[s] if s >= 0 else torch.tensor(1.0)

    def step(z: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        if scheduler.get("prediction_type", "epsilon") == "v_prediction":
            clean = past.sqrt() * z - (1 - past).sqrt() * out
            noise = past.sqrt() * out + (1 - past).sqrt() * z
        else:
            clean = (z - (1 - past).sqrt() * out) / past.sqrt()
            noise = out
        return alpha_bar[t].sqrt() * clean + (1 - alpha_bar[t]).sqrt() * noise

    return torch.tensor(t), step


def conditions(model: Any, texts: list[str]) -> dict[str, Any]:
    """What diffusers' pipelines give the denoiser for prompts; "" is the unconditional one."""
    if model.second is not None:
        return _xl_conditions(model, texts)
    transformer = hasattr(model.denoiser, "transformer_blocks")
    if transformer:
        texts = [text.lower().strip() for text in texts]
    length = 300 if transformer else model.card.text_length or 77
    ids, mask = _ids(model.tokenizer, texts, length)
    hide = {"attention_mask": mask} if transformer or model.card.pass_attention_mask else {}
    given = {"encoder_hidden_states": model.text_encoder(ids, **hide)[0]}
    return {**given, "encoder_attention_mask": mask} if transformer else given


def _xl_conditions(model: Any, texts: list[str]) -> dict[str, Any]:
    states = []
    for tokenizer, encoder in (
        (model.tokenizer, model.text_encoder),
        (model.second.tokenizer, model.second.network),
    ):
        told = encoder(_ids(tokenizer, texts, 77)[0], output_hidden_states=True)
        states.append(told.hidden_states[-2])
    joined, pooled = torch.cat(states, dim=-1), told[0].clone()
    for row, text in enumerate(texts):
        if not text:  # force_zeros_for_empty_prompt
            joined[row], pooled[row] = 0, 0
    side = model.denoiser.config.sample_size * 8
    sizes = torch.tensor([[side, side, 0, 0, side, side]] * len(texts))
    added = {"text_embeds": pooled, "time_ids": sizes}
    return {"encoder_hidden_states": joined, "added_cond_kwargs": added}


def own_tokens(model: Any, phrase: str) -> list[int]:
    """Positions of a phrase's own tokens: neither start nor end."""
    ids = model.tokenizer(phrase)["input_ids"]
    marks = {model.tokenizer.convert_tokens_to_ids(mark) for mark in MARKS}
    return [place for place, number in enumerate(ids) if number not in marks]


def _ids(tokenizer: Any, texts: list[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    encoded = tokenizer(texts, padding="max_length", max_length=length, return_attention_mask=True)
    return torch.tensor(encoded["input_ids"]), torch.tensor(encoded["attention_mask"])


def _latent(model: Any, pixels: NDArray[np.float32]) -> torch.Tensor:
    image = torch.from_numpy(pixels)[None, None]
    if model.card.image_range == "-1..1":
        image = image * 2 - 1
    image = image.repeat(1, model.vae.config.in_channels, 1, 1)
    encoded = model.vae.encode(image)
    mean = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mean
    return mean * model.vae.config.scaling_factor


def _one_map(probability: torch.Tensor, own: Sequence[int], side: int) -> torch.Tensor:
    """One layer at one step: the phrase's row, heads and tokens averaged, scaled, enlarged."""
    tokens = probability[1].mean(dim=0)[:, own].mean(dim=1)
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
