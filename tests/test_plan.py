"""What cxrg will do with a model: the layers that it reads, and the route of each preset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from cxrg import load
from cxrg.attention.layers import choose_layers
from cxrg.errors import CxrgError
from cxrg.model.card import WEIGHTS
from cxrg.plan import check_folder, make_plan
from tests.fakes import tiny_models


@pytest.mark.parametrize("family", [*tiny_models.FAMILIES, "shipped"])
def test_the_plan_of_a_folder_is_that_of_the_loaded_model(family: str, folders) -> None:
    place = WEIGHTS / "compact" if family == "shipped" else folders[family]
    model = load(place)
    report = check_folder(place)
    assert (report.usable, report.problems) == (True, ())
    plan = report.plan
    assert plan == make_plan(model)
    assert (plan.side, plan.text_length) == (model.side, model.text_length)
    assert (plan.prediction_type, plan.image_range) == (
        model.schedule.prediction_type,
        model.card.image_range,
    )
    with torch.no_grad():
        latent = model.encode(torch.zeros(model.side, model.side))
    assert (1, *plan.latent) == tuple(latent.shape)
    assert tuple(layer.name for layer in plan.layers) == choose_layers(model, "card")
    known = {"shipped": 10, "sdxl": 17, "pixart": 6, "sana": 6}
    assert plan.all_layers == known.get(family, 11)
    # methods.md 1.6; a flow is evaluated at the latent's own timestep, one step of 3 before
    read = (
        "Euler steps, reads 120 to 179 (t = 357 to 534)" if family == "sana" else "t = 360 to 537"
    )
    assert read in plan.presets["paper"]
    assert plan.dtype == str(model.dtype).removeprefix("torch.")


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of Stable Diffusion 2.x in small, to be changed."""
    return shutil.copytree(folders["sd2"], tmp_path / "model")


def test_a_preset_that_does_not_fit_the_schedule_says_so(folder: Path) -> None:
    config = folder / "scheduler/scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_train_timesteps": 100}))
    report = check_folder(folder)
    assert report.usable
    assert report.plan is not None
    assert report.plan.presets["paper"].startswith("not with this model: steps 300")


def test_a_card_that_names_a_missing_layer_is_a_problem(folder: Path) -> None:
    (folder / "cxrg.json").write_text(json.dumps({"name": "x", "layers": ["here"]}))
    report = check_folder(folder)
    assert (report.usable, report.plan) == (False, None)
    assert any("no cross-attention in layer 'here'" in problem for problem in report.problems)
    with pytest.raises(CxrgError, match="no cross-attention in layer 'here'"):
        choose_layers(load(folder), "card")
