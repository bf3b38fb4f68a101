"""Where a model is, what is known about it, and its identity: without loading its networks."""

from __future__ import annotations

import os
from pathlib import Path

from cxrg.errors import ModelError
from cxrg.model.adapters.file import adapter_digest
from cxrg.model.card import WEIGHTS, Card, known_cards, read_card
from cxrg.model.checkpoint.hub import fetch
from cxrg.model.checkpoint.identity import fingerprint, with_adapter, with_calibration
from cxrg.model.checkpoint.layout import check_entries


def find(name: str, *, revision: str | None, offline: bool) -> tuple[Path, Card]:
    """Find a model's folder, fetched from the hub where needed, and what is known about it.

    Raises:
        ModelError: there is no such model here, it cannot be fetched, its card is not valid, or
            its folder holds what is neither a file nor a folder.
    """
    folder, card = _find(name, revision=revision, offline=offline)
    check_entries(folder)
    return folder, read_card(folder) or card or Card(name=folder.name)


def identity_of(folder: Path, adapter: Path | None) -> str | None:
    """The identity of a model in a folder with an adapter, as it has it when it is loaded.

    None where a file cannot be read: loading the model gives the reason.

    Raises:
        ModelError: the adapter is not there or not valid.
    """
    try:
        card = read_card(folder)
        identity = with_calibration(fingerprint(folder), card.presence if card else {})
        return with_adapter(identity, adapter_digest(adapter.expanduser())) if adapter else identity
    except OSError:
        return None


def precision_of(dtype: str, card: Card) -> str | None:
    """The precision that a model is loaded in; None where that depends on the device."""
    if dtype != "auto":
        return dtype
    return card.dtype if card.dtype == "float32" else None


def _find(name: str, *, revision: str | None, offline: bool) -> tuple[Path, Card | None]:
    """The folder, and the package's card of it."""
    path = Path(name).expanduser()
    if path.is_file():
        raise ModelError(f"{name}: a single file; give the diffusers folder that holds unet/, vae/")
    if path.is_dir():
        return path, None
    cards = known_cards()
    card = cards.get(name)
    if card is None and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        card = next(
            (each for each in cards.values() if each.hub_id == name), Card(name=name, hub_id=name)
        )
    if card is None:
        raise ModelError(f"model {name!r} is neither a folder nor one of {', '.join(cards)}")
    if card.shipped:
        return WEIGHTS / card.name, card
    if card.weights != "download" or not card.hub_id:
        raise ModelError(f"model {name!r} cannot be fetched: {card.note or card.access}")
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    revision = revision or card.revision or None
    return fetch(card.hub_id, revision=revision, offline=offline), card
