"""Fetch a diffusers folder from the hub."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from cxrg.errors import ModelError
from cxrg.model.checkpoint.layout import EVERY_PART, networks_of
from cxrg.model.checkpoint.networks import first_line

# Environment variables with addresses of the hub and of proxies.
ADDRESSES = tuple(
    name
    for upper in ("HF_ENDPOINT", "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
    for name in (upper, upper.lower())
)
# Copies of the weights in another precision, and weights before averaging.
VARIANTS, UNAVERAGED = ("*.fp16[.-]*", "*.bf16[.-]*"), "*non_ema*"
KINDS = (".json", ".txt", ".model", ".safetensors")


def fetch(hub_id: str, *, revision: str | None, offline: bool) -> Path:
    """Return the local folder of a hub repository, and download it where needed and allowed.

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

    client, invalid = _client_errors(HfHubHTTPError)

    def snapshot(parts: Sequence[str], ignored: Sequence[str]) -> Path:
        patterns = [f"{part}/*{kind}" for part in parts for kind in KINDS]
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                local_files_only=offline,
                allow_patterns=[*patterns, "cxrg.json", "model_index.json"],
                ignore_patterns=list(ignored),
            )
        )

    try:
        folder = snapshot(EVERY_PART, (*VARIANTS, UNAVERAGED))
        if variants_only := _without_weights(folder):
            snapshot(variants_only, (UNAVERAGED,))
        return folder
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
        why = "the run is offline and it" if offline else "the hub cannot be reached and it"
        raise ModelError(
            f"{hub_id}: {why} is not in the cache; fetch it once online, or give a folder"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"{hub_id}: {first_line(error)}; try again, or give a folder") from error
    except (ImportError, ValueError, client, invalid) as error:
        # The client refuses the address of the hub or of a proxy before it calls.
        named = [name for name in ADDRESSES if os.environ.get(name)] or [ADDRESSES[0]]
        # The client's message on an address that it cannot parse may contain part of a password.
        why = "an address is not valid" if isinstance(error, invalid) else first_line(error)
        raise ModelError(
            f"{hub_id}: the hub cannot be called ({why}); correct or unset {', '.join(named)}, "
            "or give a folder"
        ) from error


def _without_weights(folder: Path) -> list[str]:
    """The parts of a folder that hold networks, but no weights."""
    return [
        part
        for part in networks_of(EVERY_PART)
        if (folder / part).is_dir() and not any((folder / part).glob("*.safetensors"))
    ]


def _client_errors(hub_error: type[Exception]) -> tuple[type[Exception], type[Exception]]:
    """``HTTPError`` and ``InvalidURL`` of the client that the hub's library calls with.

    The client is httpx, or httpx2 since the library's version 2.
    """
    base = next(kind for kind in hub_error.__mro__ if kind.__name__ == "HTTPError")
    client = import_module(base.__module__.partition(".")[0])
    return base, client.InvalidURL
