"""Map the names of MONAI's weights to diffusers'; no arithmetic.

Two packages write the same networks with different names: ``monai-generative`` 0.2, which wrote
the published files, and MONAI itself since 1.4. They differ in the attention's last projection
(``to_out.0``, ``out_proj``) and in the convolution after upsampling (``conv``, ``postconv``). The
latter's reader of the former's files silently skipped weights (Project-MONAI/MONAI, issues 8029
and 8030); here every name has one meaning, and an unknown name is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cxrg.errors import ModelError

GENERATIVE = "monai-generative"
CORE = "monai"

_BLOCK = r"(?P<at>(?:down_blocks|up_blocks)\.\d+)"
_INSIDE = r"(?P<at>(?:down_blocks\.\d+|up_blocks\.\d+|middle_block)\.)"
_END = r"(?P<end>weight|bias)"
# Patterns with MONAI's names, and diffusers' for them.
_UNET: tuple[tuple[str, str], ...] = (
    (rf"conv_in\.conv\.{_END}", r"conv_in.\g<end>"),
    (rf"time_embed\.0\.{_END}", r"time_embedding.linear_1.\g<end>"),
    (rf"time_embed\.2\.{_END}", r"time_embedding.linear_2.\g<end>"),
    (rf"out\.0\.{_END}", r"conv_norm_out.\g<end>"),
    (rf"out\.2\.conv\.{_END}", r"conv_out.\g<end>"),
    (rf"{_BLOCK}\.downsampler\.op\.conv\.{_END}", r"\g<at>.downsamplers.0.conv.\g<end>"),
    (rf"{_BLOCK}\.upsampler\.(?:conv|postconv)\.conv\.{_END}", r"\g<at>.upsamplers.0.conv.\g<end>"),
)
_RESNET: tuple[tuple[str, str], ...] = (
    (rf"(?P<same>norm1|norm2|time_emb_proj)\.{_END}", r"\g<same>.\g<end>"),
    (rf"(?P<same>conv1|conv2)\.conv\.{_END}", r"\g<same>.\g<end>"),
    (rf"(?:skip_connection|nin_shortcut)\.conv\.{_END}", r"conv_shortcut.\g<end>"),
)
_ATTENTION: tuple[tuple[str, str], ...] = (
    (rf"norm\.{_END}", r"norm.\g<end>"),
    (rf"(?P<same>proj_in|proj_out)\.conv\.{_END}", r"\g<same>.\g<end>"),
    (rf"(?P<at>transformer_blocks\.\d+)\.(?P<same>norm[123])\.{_END}", r"\g<at>.\g<same>.\g<end>"),
    (
        r"(?P<at>transformer_blocks\.\d+\.attn[12])\.(?P<same>to_[qkv])\.weight",
        r"\g<at>.\g<same>.weight",
    ),
    (
        rf"(?P<at>transformer_blocks\.\d+\.attn[12])\.(?:to_out\.0|out_proj)\.{_END}",
        r"\g<at>.to_out.0.\g<end>",
    ),
    (rf"(?P<at>transformer_blocks\.\d+)\.ff\.linear1\.{_END}", r"\g<at>.ff.net.0.proj.\g<end>"),
    (rf"(?P<at>transformer_blocks\.\d+)\.ff\.linear2\.{_END}", r"\g<at>.ff.net.2.\g<end>"),
)
_WRITERS = {
    GENERATIVE: re.compile(
        r"\.attn\d\.to_out\.0\.|\.upsampler\.conv\.|\.attentions\.\d+\.to_q\.|proj_attn"
    ),
    CORE: re.compile(r"\.attn\d\.out_proj\.|\.postconv\.|\.attn\.to_q\.|\.attn\d?\.qkv\."),
}


def writer(keys: Iterable[str], *, origin: str) -> str:
    """The package that wrote a U-Net's state dict: ``monai-generative`` or ``monai``.

    Raises:
        ModelError: the names are of neither, or of both.
    """
    names = list(keys)
    found = [
        package
        for package, pattern in _WRITERS.items()
        if any(pattern.search(name) for name in names)
    ]
    if len(found) == 1:
        return found[0]
    kind = "of both MONAI and monai-generative" if found else "of neither MONAI's packages"
    example = f", such as {names[0]}" if names else ""
    raise ModelError(
        f"{origin}: names {kind}{example}; give the state dict of a DiffusionModelUNet as saved"
    )


def unet_names(keys: Iterable[str], *, origin: str) -> dict[str, str]:
    """diffusers' names by MONAI's, for a ``DiffusionModelUNet`` with text conditioning.

    Raises:
        ModelError: a name has no counterpart.
    """
    return {key: _renamed(key, origin=origin) for key in keys}


def _renamed(key: str, *, origin: str) -> str:
    for pattern, name in _UNET:
        if match := re.fullmatch(pattern, key):
            return match.expand(name)
    inside = re.fullmatch(_INSIDE + r"(?P<kind>resnets\.\d+|attentions\.\d+|resnet_[12]|attention)"
                          r"\.(?P<rest>.+)", key)  # fmt: skip
    if inside:
        at, kind, rest = inside["at"], inside["kind"], inside["rest"]
        rules = _RESNET if kind.startswith("resnet") else _ATTENTION
        for pattern, name in rules:
            if match := re.fullmatch(pattern, rest):
                return f"{_place(at, kind)}.{match.expand(name)}"
    raise ModelError(
        f"{origin}: {key} has no counterpart in a text-conditioned U-Net; "
        "give the state dict of a DiffusionModelUNet(with_conditioning=True)"
    )


def _place(at: str, kind: str) -> str:
    if at != "middle_block.":
        return f"{at}{kind}"
    number = int(kind.removeprefix("resnet_")) - 1 if kind.startswith("resnet") else 0
    return f"mid_block.{'resnets' if kind.startswith('resnet') else 'attentions'}.{number}"


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoencoderNames:
    """diffusers' names by MONAI's, and the residual blocks of each level from the image down."""

    names: Mapping[str, str]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]


def autoencoder_names(keys: Iterable[str], *, origin: str) -> AutoencoderNames:
    """Names for an ``AutoencoderKL`` without attention, encoder, decoder and posterior.

    MONAI numbers all blocks of a half in one list; what each is shows in the names inside it.

    Raises:
        ModelError: a name has no counterpart, as those of attention have none.
    """
    halves: dict[str, dict[int, list[str]]] = {"encoder": {}, "decoder": {}}
    names: dict[str, str] = {}
    for key in keys:
        block = re.fullmatch(r"(encoder|decoder)\.blocks\.(\d+)\.(.+)", key)
        posterior = re.fullmatch(rf"(?P<same>quant_conv_mu|quant_conv_log_sigma|post_quant_conv)"
                                 rf"\.conv\.{_END}", key)  # fmt: skip
        if block:
            halves[block[1]].setdefault(int(block[2]), []).append(block[3])
        elif posterior:
            names[key] = posterior.expand(r"\g<same>.\g<end>")
        else:
            raise _strange(origin, key)
    counts = {}
    for half, blocks in halves.items():
        found, counts[half] = _half_names(half, blocks, origin=origin)
        names.update(found)
    return AutoencoderNames(
        names=names,
        encoder_blocks=counts["encoder"],
        decoder_blocks=counts["decoder"][::-1],
    )


def _half_names(
    half: str, blocks: Mapping[int, list[str]], *, origin: str
) -> tuple[dict[str, str], tuple[int, ...]]:
    """Names within the encoder or the decoder, and how many residual blocks each level has."""
    levels, samplers = (
        ("down_blocks", "downsamplers") if half == "encoder" else ("up_blocks", "upsamplers")
    )
    names: dict[str, str] = {}
    counts = [0]
    for index in sorted(blocks):
        for rest in blocks[index]:
            here, level = f"{half}.blocks.{index}", len(counts) - 1
            sampler = re.fullmatch(rf"(?:conv|postconv)\.conv\.{_END}", rest)
            plain = re.fullmatch(rf"(?P<conv>conv\.)?{_END}", rest)
            if sampler:
                target = f"{half}.{levels}.{level}.{samplers}.0.conv.{sampler['end']}"
            elif plain and plain["conv"]:
                target = f"{half}.{'conv_in' if index == 0 else 'conv_out'}.{plain['end']}"
            elif plain:
                target = f"{half}.conv_norm_out.{plain['end']}"
            else:
                inside = _resnet_name(rest)
                if inside is None:
                    raise _strange(origin, f"{here}.{rest}")
                target = f"{half}.{levels}.{level}.resnets.{counts[-1]}.{inside}"
            names[f"{here}.{rest}"] = target
        if any(rest.startswith("conv1.") for rest in blocks[index]):
            counts[-1] += 1
        elif any(re.match(r"(conv|postconv)\.conv\.", rest) for rest in blocks[index]):
            counts.append(0)
    return names, tuple(counts)


def _resnet_name(rest: str) -> str | None:
    for pattern, name in _RESNET:
        if match := re.fullmatch(pattern, rest):
            return match.expand(name)
    return None


def _strange(origin: str, key: str) -> ModelError:
    return ModelError(
        f"{origin}: {key} has no counterpart; give the state dict of an AutoencoderKL "
        "without attention, as the published one is"
    )
