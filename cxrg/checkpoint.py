"""The files of a diffusers folder: completeness, networks, noise schedule, fingerprint, fetching.

A folder holds ``vae/``, ``unet/``, ``text_encoder/``, ``tokenizer/`` and ``scheduler/``. Whatever
this version does not handle is refused by name here, before any weight is read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cxrg.errors import ModelError

NETWORKS = ("vae", "unet", "text_encoder")
CONFIGS = {
    "vae": "config.json",
    "unet": "config.json",
    "text_encoder": "config.json",
    "tokenizer": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
UNSAFE = (".bin", ".pt", ".pth", ".ckpt")
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
# Conditions beyond text: their networks need inputs that a phrase does not give.
UNET_EXTRAS = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type")
CROSS_ATTENDING = ("PixArtTransformer2DModel", "SanaTransformer2DModel")
JOINT = ("SD3", "Flux", "Lumina2")
BLOCK = 1 << 20
BLOCKS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What a folder holds, on the CPU; ``scheduler`` is its configuration."""

    vae: Any
    denoiser: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Mapping[str, Any]


def read_folder(folder: Path, unet_dtype: torch.dtype = torch.float32) -> Parts:
    """Read a diffusers folder, all but the UNet in float32.

    Raises:
        ModelError: a part is missing, not in safetensors, broken, or of a kind not handled.
    """
    configs = {part: part_config(folder, part) for part in CONFIGS}
    vae_class = autoencoder_class(folder, configs["vae"])
    check_unet(folder, configs["unet"], configs["vae"])
    variants = {part: weights_variant(folder / part) for part in NETWORKS}
    # Here and not above: this import takes seconds, and a usage error does not need it.
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    text_class = text_encoder_class(configs["text_encoder"])
    classes = {"vae": vae_class, "unet": UNet2DConditionModel, "text_encoder": text_class}
    dtypes: dict[str, dict[str, Any]] = {
        "vae": {"torch_dtype": torch.float32},
        "unet": {"torch_dtype": unet_dtype},
        "text_encoder": {"dtype": torch.float32, "trust_remote_code": False},
    }
    with quiet_libraries():
        networks = {
            part: _network(classes[part], folder / part, variant=variants[part], **dtypes[part])
            for part in NETWORKS
        }
        tokenizer = read_tokenizer(folder / "tokenizer")
    check_text(folder, networks, tokenizer)
    denoiser = networks.pop("unet")
    return Parts(denoiser=denoiser, tokenizer=tokenizer, scheduler=configs["scheduler"], **networks)


def part_config(folder: Path, part: str) -> dict[str, Any]:
    """The configuration of a part.

    Raises:
        ModelError: it is missing or cannot be read.
    """
    path = folder / part / CONFIGS[part]
    family = transformer_family(folder) if part == "unet" and not path.is_file() else ""
    if family:
        raise ModelError(f"{folder}: {family}, not handled yet; use a model with a unet/ folder")
    if not path.is_file():
        raise ModelError(
            f"{folder}: no {part}/{CONFIGS[part]}; "
            f"a diffusers folder holds {', '.join(f'{each}/' for each in CONFIGS)}"
        )
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: not a JSON object ({error}); copy it again") from error


def transformer_family(folder: Path) -> str:
    """What kind of diffusion transformer a folder holds; empty where it holds none.

    Stable Diffusion 3.5, Flux and their like let image and text attend in one softmax over both.
    """
    path = folder / "transformer" / "config.json"
    if not path.parent.is_dir():
        return ""
    try:
        name = json.loads(path.read_text(encoding="utf-8")).get("_class_name", "")
    except (OSError, ValueError, AttributeError):
        name = ""
    if name in CROSS_ATTENDING:
        return f"a diffusion transformer with text cross-attention ({name})"
    if name.startswith(JOINT):
        return f"a diffusion transformer with joint attention of image and text ({name})"
    return f"a diffusion transformer{f' ({name})' if name else ''}"


def autoencoder_class(folder: Path, config: Mapping[str, Any]) -> Any:
    """The autoencoder's class.

    Raises:
        ModelError: it is none that is handled.
    """
    name = config.get("_class_name")
    if name == "AutoencoderKL":
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        return AutoencoderKL
    if name == "AutoencoderDC":
        from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC

        return AutoencoderDC
    if name == "MonaiAutoencoderKL":
        from cxrg.autoencoder import MonaiAutoencoderKL

        return MonaiAutoencoderKL
    raise ModelError(f"{folder}: autoencoder {name} is not handled; use AutoencoderKL or -DC")


def check_unet(folder: Path, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    """Complain of a U-Net that is not handled, or that takes other latents than the autoencoder's.

    Raises:
        ModelError: the configurations say so.
    """
    name = unet.get("_class_name")
    if name != "UNet2DConditionModel":
        raise ModelError(f"{folder}: denoiser {name} is not handled; use UNet2DConditionModel")
    extras = [key for key in UNET_EXTRAS if unet.get(key)]
    if extras:
        raise ModelError(
            f"{folder}: the UNet also wants {', '.join(extras)} (as SDXL does), not handled yet; "
            "use a model that is conditioned on text alone"
        )
    wanted, given = unet.get("in_channels", 4), vae.get("latent_channels")
    if wanted != given:
        raise ModelError(
            f"{folder}: the UNet takes {wanted} channels but the autoencoder gives {given}; "
            "inpainting and depth models are not handled, and parts must belong together"
        )


def weights_variant(part: Path) -> str | None:
    """``fp16`` where a part comes in that variant only; its weights must be safetensors."""
    names = [path.name for path in part.iterdir()]
    safe = [name for name in names if name.endswith(".safetensors")]
    if not safe:
        unsafe = [name for name in names if name.endswith(UNSAFE)]
        found = f"only {unsafe[0]}, which can run code when read" if unsafe else "no weights"
        raise ModelError(
            f"{part}: {found}; save the model with save_pretrained(..., safe_serialization=True)"
        )
    return "fp16" if all(".fp16" in name for name in safe) else None


def text_encoder_class(config: Mapping[str, Any]) -> Any:
    """The text encoder's class, from its configuration."""
    import transformers

    name = (config.get("architectures") or [""])[0]
    # Heads on top ("...ForMaskedLM") would answer with logits where embeddings are wanted.
    if name.endswith("Model") and hasattr(transformers, name):
        return getattr(transformers, name)
    return transformers.AutoModel


def _network(kind: Any, part: Path, **how: Any) -> Any:
    from safetensors import SafetensorError

    try:
        network, report = kind.from_pretrained(
            part,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **how,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{part}: {first_line(error)}; copy the folder again") from error
    # A pooler is not read here, and encoders are often saved without one.
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise ModelError(
            f"{part}: {len(missing)} weights are missing, such as {missing[0]}; copy it again"
        )
    return network


def read_tokenizer(part: Path) -> Any:
    """The tokenizer in a folder.

    Raises:
        ModelError: it cannot be read.
    """
    import transformers

    # Without its vocabulary a tokenizer loads all the same, and knows no word.
    if not any((part / name).is_file() for name in VOCABULARIES):
        raise ModelError(f"{part}: no vocabulary ({', '.join(VOCABULARIES)}); copy it again")
    try:
        return transformers.AutoTokenizer.from_pretrained(
            part, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{part}: {first_line(error)}; copy it again") from error


def check_text(folder: Path, networks: Mapping[str, Any], tokenizer: Any) -> None:
    """Complain of a text encoder that does not fit the U-Net or the tokenizer.

    Raises:
        ModelError: it does not fit.
    """
    config = networks["text_encoder"].config
    wanted, given = networks["unet"].config.cross_attention_dim, config.hidden_size
    if wanted != given:
        raise ModelError(
            f"{folder}: the UNet wants text embeddings of width {wanted} but the text encoder "
            f"gives {given}; parts must belong together"
        )
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens but the text encoder knows "
            f"{config.vocab_size}; parts must belong together"
        )


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the libraries' progress bars and advice off the screen: a library does not print."""
    import diffusers.utils.logging
    import transformers.utils.logging

    text: Any = transformers.utils.logging
    both: tuple[Any, ...] = (diffusers.utils.logging, text)
    levels, bars = [each.get_verbosity() for each in both], text.is_progress_bar_enabled()
    try:
        for each in both:
            each.set_verbosity_error()
        text.disable_progress_bar()
        yield
    finally:
        for each, level in zip(both, levels, strict=True):
            each.set_verbosity(level)
        if bars:
            text.enable_progress_bar()


def first_line(error: Exception) -> str:
    """What an error says, without what follows its first line."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def schedule(config: Mapping[str, Any]) -> tuple[Tensor, Literal["epsilon", "v_prediction"]]:
    """``alphas_cumprod`` float64 ``(T,)`` and the prediction type of a scheduler configuration.

    The betas are diffusers' (``linear``, ``scaled_linear``, ``squaredcos_cap_v2``, or trained
    ones), optionally rescaled to zero terminal SNR (Lin et al., arXiv 2305.08891, algorithm 1).

    Raises:
        ModelError: a flow-matching or otherwise different schedule or prediction.
    """
    name = str(config.get("_class_name", ""))
    if name.startswith(("FlowMatch", "EDM")) or config.get("use_flow_sigmas"):
        raise ModelError(f"scheduler {name} is not handled; use a DDPM or DDIM noise schedule")
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"prediction type {prediction!r} is not handled; use epsilon, v_prediction"
        )
    alphas_cumprod = torch.cumprod(1 - _betas(config), dim=0)
    if config.get("rescale_betas_zero_snr"):
        root = alphas_cumprod.sqrt()
        alphas_cumprod = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return alphas_cumprod, "epsilon" if prediction == "epsilon" else "v_prediction"


def _betas(config: Mapping[str, Any]) -> Tensor:
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=torch.float64)
    count = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    kind = config.get("beta_schedule", "linear")
    if kind == "linear":
        return torch.linspace(start, end, count, dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2
    if kind == "squaredcos_cap_v2":
        times = torch.arange(count + 1, dtype=torch.float64) / count
        bar = torch.cos((times + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    raise ModelError(
        f"beta schedule {kind!r} is not handled; use linear, scaled_linear or squaredcos_cap_v2"
    )


def fingerprint(folder: Path) -> str:
    """``sha256:`` and 16 hex digits over a folder's configuration and weights.

    Of every file the name, the size and at most 64 blocks of 1 MiB, evenly spaced, count: files up
    to 64 MiB entirely, and several gigabytes in a moment.
    """
    digest = hashlib.sha256()
    for part in CONFIGS:
        for path in sorted((folder / part).iterdir()):
            if path.suffix in (".json", ".txt", ".safetensors"):
                digest.update(f"{part}/{path.name}:{path.stat().st_size}\n".encode())
                for block in _blocks(path):
                    digest.update(block)
    return f"sha256:{digest.hexdigest()[:16]}"


def _blocks(path: Path) -> Iterator[bytes]:
    count = math.ceil(path.stat().st_size / BLOCK)
    chosen = (
        range(count)
        if count <= BLOCKS
        else (i * (count - 1) // (BLOCKS - 1) for i in range(BLOCKS))
    )
    with path.open("rb") as file:
        for index in chosen:
            file.seek(index * BLOCK)
            yield file.read(BLOCK)


def fetch(hub_id: str, *, revision: str | None, offline: bool) -> Path:
    """The local folder of a hub repository, downloaded where it must be and may be.

    Raises:
        ModelError: it is not in the cache and cannot be fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = [f"{part}/*{kind}" for part in CONFIGS for kind in (".json", ".txt", ".safetensors")]
    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                local_files_only=offline,
                allow_patterns=[*wanted, "cxrg.json", "model_index.json"],
                ignore_patterns=["*.fp16.*", "*non_ema*"],
            )
        )
    except GatedRepoError as error:
        raise ModelError(
            f"{hub_id}: its terms must be accepted at https://huggingface.co/{hub_id}, "
            "then log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"{hub_id}: no revision {revision!r}; use a branch, tag or commit"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(f"{hub_id}: no such repository on the hub; check the spelling") from error
    except LocalEntryNotFoundError as error:
        why = "offline was asked for and it" if offline else "the hub cannot be reached and it"
        raise ModelError(
            f"{hub_id}: {why} is not in the cache; fetch it once online, or give a folder"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"{hub_id}: {first_line(error)}; try again, or give a folder") from error
