"""Fetching a diffusers folder from the hub."""

from __future__ import annotations

from pathlib import Path

from cxrg.errors import ModelError
from cxrg.model.checkpoint.layout import EVERY_PART
from cxrg.model.checkpoint.networks import first_line

KINDS = (".json", ".txt", ".model", ".safetensors")


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

    wanted = [f"{part}/*{kind}" for part in EVERY_PART for kind in KINDS]
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
