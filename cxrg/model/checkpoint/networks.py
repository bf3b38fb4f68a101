"""The networks of a diffusers folder: their classes, and their weights, from safetensors only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cxrg.errors import ModelError
from cxrg.model.checkpoint import layout
from cxrg.model.families.base import architecture

# Files are not trusted: whatever a library raises while it builds from them is the folder's fault,
# and libraries have many exceptions of their own.
BUILD_FAILURES = Exception
_DEPTHS = ("layers", "depth", "blocks", "resnets")
"""How names of settings end that say how many layers, or blocks, a network has."""


def check_depth(place: Path, config: Mapping[str, Any], tensors: int) -> None:
    """Check that a configuration asks for no more layers than its weight files have tensors.

    Building a network of thousands of layers would take hours.

    Raises:
        ModelError: it asks for more, or for less than none.
    """
    for name, value in config.items():
        if not name.endswith(_DEPTHS) and "layers_per_block" not in name:
            continue
        counts = [each for each in _flat(value) if type(each) is int]
        if sum(counts) > tensors or any(count < 0 for count in counts):
            raise ModelError(
                f"{place}: config.json asks for {name} {value!r:.40}, but there are {tensors} "
                "weights; copy it again"
            )


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from _flat(each)
    else:
        yield value


def network_class(folder: Path, part: str, config: Mapping[str, Any]) -> Any:
    """The class of a part that has weights.

    Raises:
        ModelError: the class is not handled, or its weights are quantised.
    """
    if config.get("quantization_config"):
        raise ModelError(
            f"{folder / part}: quantised weights are not handled; use float32, float16 or bfloat16"
        )
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

    name = architecture(config)
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
    try:
        network, report = kind.from_pretrained(
            part,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **how,
        )
    except BUILD_FAILURES as error:
        raise ModelError(f"{part}: {first_line(error)}; copy the folder again") from error
    # A pooler is not read here, and encoders are often saved without one.
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise ModelError(
            f"{part}: {len(missing)} weights are missing, such as {missing[0]}; copy it again"
        )
    broken = [name for name, value in network.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise ModelError(
            f"{part}: {len(broken)} weights are not finite, such as {broken[0]}; get another copy"
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
