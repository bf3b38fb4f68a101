"""MONAI's autoencoder, expressed with diffusers' blocks.

Both packages follow Rombach et al. (CVPR 2022), but not to the letter. diffusers' `AutoencoderKL`
cannot be configured to be MONAI's ``AutoencoderKL(with_*_nonlocal_attn=False)``, which

- has no middle blocks, where diffusers has two residual blocks;
- decodes with as many residual blocks per level as it encodes with; diffusers has one more;
- goes from the last group normalisation to the last convolution with no SiLU in between;
- computes the posterior's mean and log variance from the ``L`` channels that the encoder gives;
  diffusers' encoder gives ``2 L``.

All else is the same: residual blocks with an epsilon of 1e-6, downsampling padded at the right and
the bottom only, nearest upsampling and a convolution.
"""

from __future__ import annotations

import functools
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn


class Passage(nn.Module):
    """Stands where diffusers has a block that MONAI has not."""

    def forward(self, sample: Tensor, *_: Any) -> Tensor:
        return sample


class MonaiAutoencoderKL(AutoencoderKL):
    """`AutoencoderKL` with MONAI's structure; the same configuration, encode and decode."""

    # diffusers reads the names of a configuration from this signature; mypy knows no such wrapper.
    @functools.wraps(AutoencoderKL.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        encoder: Any = self.encoder
        decoder: Any = self.decoder
        config: Any = self.config
        latent = config.latent_channels
        for half in (encoder, decoder):
            half.mid_block = Passage()
            half.conv_act = Passage()
        for block in decoder.up_blocks:
            del block.resnets[-1]
        encoder.conv_out = nn.Conv2d(encoder.conv_out.in_channels, latent, 3, padding=1)
        self.quant_conv = nn.Conv2d(latent, 2 * latent, 1)
