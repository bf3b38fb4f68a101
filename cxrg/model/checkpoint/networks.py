"""The networks of a diffusers folder: their classes, and their weights, from safetensors only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cxrg.errors import ModelError
from cxrg.model.checkpoint import layout


def network_class(folder: Path, part: str, config: Mapping[str, Any]) -> Any:
    """The class of a part that has weights.

    Raises:
        ModelError: the class is not handled.
    """
    if part == "vae":
        return autoencoder_class(folder, config)
    if part in layout.DENOISERS:
        return denoiser_class(folder, config)
    return text_encoder_class(part, config)


# Classes are imported inside functions: that takes seconds, which a usage error need not wait for.


def autoencoder_class(folder: Path, config: Mapping[str, Any]) -> Any:
    """The autoencoder's class.

    Raises:
        ModelError: the class is not handled.
    """
    name = config.get("_class_name")
    if name == "AutoencoderKL":
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        return AutoencoderKL
    if name == "AutoencoderDC":
        from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC

        return AutoencoderDC
    if name == "MonaiAutoencoderKL":
        from cxrg.model.families.monai_autoencoder import MonaiAutoencoderKL

        return MonaiAutoencoderKL
    raise ModelError(f"{folder}: autoencoder {name} is not handled; use AutoencoderKL or -DC")


def denoiser_class(folder: Path, config: Mapping[str, Any]) -> Any:
    """The denoiser's class.

    Raises:
        ModelError: it is of a kind that is not handled.
    """
    return layout.check_family(folder, config).network_class()


def text_encoder_class(part: str, config: Mapping[str, Any]) -> Any:
    """A text encoder's class, from its configuration."""
    import transformers

    name = str((config.get("architectures") or [""])[0])
    if part == "text_encoder_2":
        return transformers.CLIPTextModelWithProjection  # its projection is the pooled embedding
    if name == "CXRBertModel":
        return transformers.BertModel  # a BERT with heads that nothing here reads
    if config.get("model_type") == "t5":
        return transformers.T5EncoderModel  # without its decoder
    # With a head on top ("...ForMaskedLM") the output would be logits, not embeddings.
    if name.endswith("Model") and hasattr(transformers, name):
        return getattr(transformers, name)
    return transformers.AutoModel


def read_network(kind: Any, part: Path, **how: Any) -> Any:
    """Load a network with its weights, on the CPU.

    Raises:
        ModelError: the files are broken, or weights are missing.
    """
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


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the libraries' progress bars and messages: this library does not print."""
    import diffusers.utils.logging
    import transformers.utils.logging

    both: tuple[Any, ...] = (diffusers.utils.logging, transformers.utils.logging)
    levels = [each.get_verbosity() for each in both]
    bars = [each for each in both if each.is_progress_bar_enabled()]
    try:
        for each in both:
            each.set_verbosity(each.CRITICAL)
            each.disable_progress_bar()
        yield
    finally:
        for each, level in zip(both, levels, strict=True):
            each.set_verbosity(level)
        for each in bars:
            each.enable_progress_bar()


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
