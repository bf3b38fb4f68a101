"""MONAI's own networks as the oracle for `cxrg.model.convert.monai`.

Run as a script where ``monai`` (>= 1.4) or ``monai-generative`` 0.2 with ``monai`` 1.3 is
installed, it writes ``tests/data/PACKAGE.safetensors``: the names and shapes of the published
architecture's weights, and what a small one gives for fixed inputs, so that the tests compare with
both packages where neither is installed::

    python tests/oracles/monai_oracle.py monai
    python tests/oracles/monai_oracle.py monai-generative

Weights come from a counter and their names (splitmix64), the same wherever they are made.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
import zlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

DATA = Path(__file__).parents[1] / "data"
PACKAGES = {"monai": "monai.networks.nets", "monai-generative": "generative.networks.nets"}
NEEDED = {"monai": "monai >= 1.4", "monai-generative": "monai-generative 0.2 with monai 1.3"}
WIDTH = 32

# methods.md, section 1.2; the model zoo's inference.json.
PUBLISHED: dict[str, dict[str, Any]] = {
    "autoencoder": {"channels": (64, 128, 128, 128), "latent": 3},
    "unet": {"channels": (256, 512, 768), "width": 1024, "heads": (0, 512, 768)},
}
SMALL: dict[str, dict[str, Any]] = {
    "autoencoder": {"channels": (32, 64, 64, 64), "latent": 3},
    "unet": {"channels": (32, 64, 96), "width": WIDTH, "heads": (0, 64, 96)},
}
# The same weights read with two and three heads.
MANY_HEADS: dict[str, Any] = {"channels": (32, 64, 96), "width": WIDTH, "heads": (0, 32, 32)}


def autoencoder(package: str, *, channels: tuple[int, ...], latent: int) -> Any:
    """The package's own ``AutoencoderKL`` as published but for its sizes."""
    return (
        _nets(package)
        .AutoencoderKL(
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            latent_channels=latent,
            num_res_blocks=2,
            attention_levels=(False,) * len(channels),
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
            **{_channels_name(package): channels},
        )
        .eval()
    )


def unet(package: str, *, channels: tuple[int, ...], width: int, heads: tuple[int, ...]) -> Any:
    """The package's own ``DiffusionModelUNet`` as published but for its sizes."""
    return (
        _nets(package)
        .DiffusionModelUNet(
            spatial_dims=2,
            in_channels=3,
            out_channels=3,
            num_res_blocks=2,
            attention_levels=(False, True, True),
            with_conditioning=True,
            cross_attention_dim=width,
            num_head_channels=heads,
            **{_channels_name(package): channels},
        )
        .eval()
    )


def installed(package: str) -> bool:
    """Whether the package's networks are here; ``monai`` 1.3 does not have them yet."""
    try:
        return hasattr(_nets(package), "DiffusionModelUNet")
    except ImportError:
        return False


def _nets(package: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(PACKAGES[package])


def _channels_name(package: str) -> str:
    return "channels" if package == "monai" else "num_channels"


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A state dict of fixed random numbers that keep the variance of what they are applied to."""
    return {name: torch.from_numpy(_numbers(name, tuple(shape))) for name, shape in shapes.items()}


def _numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    counter = np.arange(math.prod(shape), dtype=np.uint64)
    mixed = counter + np.uint64(zlib.crc32(name.encode()) << 32)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    uniform = ((mixed >> np.uint64(11)) / 2.0**53 * 2 - 1).reshape(shape)
    if len(shape) == 1:
        return (uniform * 0.2 + name.endswith("weight")).astype(np.float32)
    return (uniform * (3 / math.prod(shape[1:])) ** 0.5).astype(np.float32)


def inputs() -> dict[str, Tensor]:
    """An image ``(1, 1, 64, 64)`` in [0, 1], latents, timesteps and context of the small U-Net."""
    shapes = {"image": (1, 1, 64, 64), "latents": (2, 3, 16, 16), "context": (2, 7, WIDTH)}
    made = {name: torch.from_numpy(_numbers(name, shape)) for name, shape in shapes.items()}
    return {
        "image": made["image"] / made["image"].abs().max() / 2 + 0.5,
        "latents": made["latents"] * 20,
        "context": made["context"] * 4,
        "timesteps": torch.tensor([360, 537]),
    }


def shapes_of(network: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


@torch.no_grad()
def outputs(package: str) -> dict[str, Tensor]:
    """What the package's small networks give for `inputs` with `weights`."""
    given = inputs()
    vae = autoencoder(package, **SMALL["autoencoder"])
    vae.load_state_dict(weights(shapes_of(vae)))
    mean, sigma = vae.encode(given["image"])
    results = {"mean": mean, "sigma": sigma, "decoded": vae.decode(mean)}
    for name, sizes in (("unet", SMALL["unet"]), ("unet_many_heads", MANY_HEADS)):
        net = unet(package, **sizes)
        net.load_state_dict(weights(shapes_of(net)))
        results[name] = net(
            given["latents"], timesteps=given["timesteps"], context=given["context"]
        )
    return results


def shapes(package: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """Names and shapes of all weights, small and as published, without making any."""
    with torch.device("meta"):
        return {
            f"{size}_{kind}": shapes_of(builder(package, **sizes[kind]))
            for size, sizes in (("small", SMALL), ("published", PUBLISHED))
            for kind, builder in (("autoencoder", autoencoder), ("unet", unet))
        }


def stored(package: str) -> tuple[dict[str, dict[str, tuple[int, ...]]], dict[str, Tensor]]:
    """`shapes` and `outputs` as this script wrote them."""
    with safe_open(DATA / f"{package}.safetensors", framework="pt") as file:
        facts = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    read = {kind: json.loads(facts[kind]) for kind in facts if "_" in kind}
    return {
        kind: {name: tuple(shape) for name, shape in names.items()} for kind, names in read.items()
    }, tensors


def main(package: str) -> None:
    version = import_module("importlib.metadata").version(package)
    facts = {kind: json.dumps(names) for kind, names in shapes(package).items()}
    tensors = {name: value.contiguous() for name, value in outputs(package).items()}
    DATA.mkdir(exist_ok=True)
    save_file(tensors, DATA / f"{package}.safetensors", {"version": version, **facts})


if __name__ == "__main__":
    main(sys.argv[1])
