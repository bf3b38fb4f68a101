"""A text-conditioned latent diffusion model, read from a diffusers folder or the hub.

Image to latent (Rombach et al., CVPR 2022, section 3.1): the mean of the autoencoder's posterior,
or the latent itself where the autoencoder is deterministic (``AutoencoderDC``), scaled as its
configuration says (`cxrg.model.latent_scale`). Only safetensors are read: other formats can run
code.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrg.errors import ModelError, UsageError
from cxrg.model.card import Card
from cxrg.model.conditioning import Conditioning
from cxrg.model.families import family_of
from cxrg.model.families.base import UNLIMITED, Family
from cxrg.model.families.stable_diffusion_xl import SecondEncoder
from cxrg.model.latent_scale import read_latent_scale
from cxrg.model.schedule import Schedule

if TYPE_CHECKING:
    from cxrg.model.adapters.attach import Adapter

# Of 77 x 768 floats each in Stable Diffusion 1.x: 60 MB; with T5 1.3 GB, beside weights of 19 GB.
REMEMBERED_TEXTS = 256


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, weakref_slot=True)
class Model:
    """The networks of one checkpoint on one device, with what is known about them.

    Attributes:
        second: the second text encoder of Stable Diffusion XL, else None.
        schedule: shares of image and noise per timestep, and what the network's output means.
        identity: a fingerprint of the folder's weights and configuration, and of the adapter.
        dtype: the denoiser's precision; the autoencoder and the text encoder stay in float32, they
            run once per image and phrase and all later arithmetic rests on them.
        adapter: what was attached to it, see `cxrg.model.adapters`.
    """

    vae: Any
    denoiser: Any
    text_encoder: Any
    tokenizer: Any
    second: SecondEncoder | None = None
    schedule: Schedule
    card: Card
    identity: str
    device: torch.device
    dtype: torch.dtype
    adapter: Adapter | None = None
    _texts: OrderedDict[str, Conditioning] = field(
        default_factory=OrderedDict, init=False, repr=False
    )

    def __repr__(self) -> str:
        """One line without the networks."""
        adapter = f" with {self.adapter.name}" if self.adapter else ""
        return (
            f"<Model: {self.card.name}{adapter}, {self.precision} on {self.device}, "
            f"{self.side} x {self.side} pixels>"
        )

    @property
    def factor(self) -> int:
        """Image pixels per latent position, along one side."""
        blocks = getattr(self.vae.config, "block_out_channels", None)
        return 1 << len(blocks or self.vae.config.encoder_block_out_channels) - 1

    @property
    def side(self) -> int:
        """Pixels of the model's square."""
        size = self.denoiser.config.sample_size
        if not self.card.side and not isinstance(size, int):
            raise ModelError(
                f"{self.card.name}: sample_size {size} is not one side; set side in cxrg.json"
            )
        return self.card.side or size * self.factor

    @property
    def family(self) -> Family:
        """The denoiser's family, which knows its text encoding, conditions and layers."""
        return family_of(self.denoiser)

    @property
    def text_encoders(self) -> tuple[Any, ...]:
        """The networks that encode text: one, or the two of Stable Diffusion XL."""
        return (self.text_encoder, self.second.network) if self.second else (self.text_encoder,)

    @property
    def tokenizers(self) -> tuple[Any, ...]:
        """The tokenizers of `text_encoders`, in their order."""
        return (self.tokenizer, self.second.tokenizer) if self.second else (self.tokenizer,)

    @property
    def text_length(self) -> int:
        """Tokens of a padded prompt, start and end tokens included."""
        places = getattr(self.text_encoder.config, "max_position_embeddings", UNLIMITED)
        most = min(int(self.tokenizer.model_max_length), places, self.family.longest_text)
        if not self.card.text_length and most >= UNLIMITED:
            raise ModelError(f"{self.card.name}: no prompt length; set text_length in cxrg.json")
        return self.card.text_length or most

    def encode(self, pixels: NDArray[np.float32] | Tensor) -> Tensor:
        """Latents ``(B, C, h, w)`` of grey images ``(S, S)`` or ``(B, S, S)`` in [0, 1].

        Raises:
            UsageError: the images' sides are not multiples of the autoencoder's factor.
        """
        return self.posterior(pixels)[0]

    @property
    def precision(self) -> str:
        """The denoiser's precision, such as ``float32``."""
        return str(self.dtype).removeprefix("torch.")

    def posterior(self, pixels: NDArray[np.float32] | Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents' posterior, each ``(B, C, h, w)``.

        Raises:
            UsageError: see `encode`.
        """
        image = torch.as_tensor(pixels, dtype=torch.float32, device=self.device)
        image = image[None] if image.ndim == 2 else image
        if image.ndim != 3 or any(side % self.factor for side in image.shape[1:]):
            shape = " x ".join(map(str, image.shape))
            raise UsageError(f"image of {shape} pixels; sides must be multiples of {self.factor}")
        image = image * 2 - 1 if self.card.image_range == "-1..1" else image
        image = image[:, None].expand(-1, self.vae.config.in_channels, -1, -1)
        encoded = self.vae.encode(image)
        scale = read_latent_scale(self.vae.config)
        if hasattr(encoded, "latent_dist"):
            posterior = encoded.latent_dist
            return scale.scale(posterior.mean), scale.scale_deviation(posterior.std)
        # AutoencoderDC has no posterior: its latent is the mean, and certain.
        mean = scale.scale(encoded.latent)
        return mean, torch.zeros_like(mean)

    def decode(self, latents: Tensor) -> Tensor:
        """Grey images ``(B, S, S)`` in [0, 1] of latents ``(B, C, h, w)``."""
        raw = read_latent_scale(self.vae.config).unscale(latents)
        grey = self.vae.decode(raw).sample.mean(dim=1)
        grey = (grey + 1) / 2 if self.card.image_range == "-1..1" else grey
        return cast(Tensor, grey.clamp(0, 1))

    def denoise(
        self, latents: Tensor, timesteps: Tensor | int, conditioning: Conditioning
    ) -> Tensor:
        """The network's raw output, float32 ``(B, C, h, w)``; a learned variance is left out.

        Args:
            latents: ``(B, C, h, w)``.
            timesteps: one training timestep, or one per row ``(B,)``; -1 is no noise, for a flow.
            conditioning: the condition of the ``B`` rows.
        """
        labels = self.schedule.labels(torch.as_tensor(timesteps, device=self.device))
        labels = self.family.labels(self.denoiser.config, labels)
        output = self.denoiser(
            latents.to(self.dtype),
            timestep=labels.expand(len(latents)),
            encoder_hidden_states=conditioning.embeds.to(self.dtype),
            **self.family.conditions(self, conditioning),
            return_dict=False,
        )[0]
        return cast(Tensor, output[:, : latents.shape[1]].float())

    def encode_text(self, texts: list[str]) -> Conditioning:
        """The condition on prompts, padded or cut to the model's text length."""
        conditioning = self.family.encode(self, texts)
        if self.adapter is None:
            return conditioning
        return replace(conditioning, embeds=self.adapter.apply(self, texts, conditioning.embeds))

    def tokenise(self, tokenizer: Any, texts: list[str]) -> Any:
        """Token ids and attention mask of prompts, padded or cut to the model's text length."""
        return tokenizer(
            texts,
            padding="max_length",
            max_length=self.text_length,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self.device)

    def embedding(self, text: str) -> Conditioning:
        """The condition on one prompt; those used last are remembered."""
        known = self._texts.pop(text, None)
        if known is None:
            # Not an inference tensor: it outlives the caller's block.
            with torch.inference_mode(False), torch.no_grad():
                known = self.encode_text([text])
        self._texts[text] = known
        if len(self._texts) > REMEMBERED_TEXTS:
            self._texts.popitem(last=False)
        return known
