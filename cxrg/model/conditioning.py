"""What a denoiser is conditioned on: text embeddings, and other inputs of its family.

U-Nets take the embeddings, padding included. Diffusion transformers (PixArt, Sana) also take a mask
and give padding no attention. Stable Diffusion XL also takes an embedding pooled over the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Conditioning:
    """The condition of ``B`` rows; every tensor's first axis is the row.

    Attributes:
        embeds: float32 ``(B, L, D)``, an embedding per token.
        mask: bool ``(B, L)``, the tokens that the denoiser attends to; None: all of them.
        pooled: float32 ``(B, P)``, an embedding per prompt; None where the denoiser takes none.
    """

    embeds: Tensor
    mask: Tensor | None = None
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.embeds)

    def row(self, index: int) -> Conditioning:
        """One row, still with its first axis."""
        part = slice(index, index + 1)
        return Conditioning(
            embeds=self.embeds[part],
            mask=None if self.mask is None else self.mask[part],
            pooled=None if self.pooled is None else self.pooled[part],
        )

    def repeat(self, rows: int) -> Conditioning:
        """The same single row for many, without copies."""
        return Conditioning(
            embeds=self.embeds.expand(rows, -1, -1),
            mask=None if self.mask is None else self.mask.expand(rows, -1),
            pooled=None if self.pooled is None else self.pooled.expand(rows, -1),
        )

    @classmethod
    def join(cls, parts: Sequence[Conditioning]) -> Conditioning:
        """The rows of all parts, which come from one model."""
        import torch

        masks = [part.mask for part in parts if part.mask is not None]
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return cls(
            embeds=torch.cat([part.embeds for part in parts]),
            mask=torch.cat(masks) if masks else None,
            pooled=torch.cat(pooled) if pooled else None,
        )
