"""What all tests share: no network (see also --disable-socket in pyproject.toml), and skips."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Read by the hub's client when it is imported, so set before any test module is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if not wanting:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Developer data beside the repository, which is never part of it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no developer data in ../shared")
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny checkpoint per model family; a test that changes one works on a copy."""
    from tests.fakes import tiny_models

    root = tmp_path_factory.mktemp("models")
    return {name: build(root / name) for name, build in tiny_models.FAMILIES.items()}


@pytest.fixture(autouse=True)
def any_picture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ground patterns in tests as if they were chest X-rays, except where that is tested."""
    if request.node.get_closest_marker("view"):
        return
    import cxrg.grounding

    monkeypatch.setattr(cxrg.grounding, "check_view", lambda image, **_: image)
