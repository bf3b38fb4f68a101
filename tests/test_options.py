"""Options: presets, what a card may change, text as a command line has it, and refusals."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from cxrg.errors import UsageError
from cxrg.model.card import Card
from cxrg.options import (
    DEFAULT_PRESET,
    KNOBS,
    PRESETS,
    Options,
    RunSettings,
    as_text,
    knob_rows,
    modernise,
    quantile_of,
    read_settings,
    resolve,
)


def test_paper_is_the_published_procedure() -> None:
    paper = PRESETS["paper"]
    assert (paper.path, paper.steps, paper.window) == ("ddim", 300, (120, 180))
    assert (paper.tokens, paper.normalise, paper.mask) == ("all", "minmax", "otsu")
    assert (paper.enlarge, paper.sparse) == ("bilinear", "off")
    assert paper.sigma * 512 == 2.5
    assert paper.fit == "crop"


def test_fast_spends_at_most_eight_evaluations() -> None:
    fast = PRESETS[DEFAULT_PRESET]
    assert fast.path == "noise"
    assert len(fast.timesteps) * fast.draws <= 8


def test_a_preset_knows_its_own_name() -> None:
    assert all(options.preset == name for name, options in PRESETS.items())


def test_the_card_changes_a_preset_and_the_caller_changes_both() -> None:
    card = Card(
        name="any",
        presets={"fast": {"timesteps": [100, 200], "absent_below": 0.3, "mask": "soft"}},
    )
    options = resolve("fast", card.presets, absent_below=0.5)
    assert (options.timesteps, options.absent_below, options.mask) == ((100, 200), 0.5, "soft")
    assert resolve("paper", card.presets) == PRESETS["paper"]


@pytest.mark.parametrize(
    ("knob", "text", "value"),
    [
        ("steps", "50", 50),
        ("window", "120:180", (120, 180)),
        ("window", "0.4:0.6", (0.4, 0.6)),
        ("window", [0.4, 0.6], (0.4, 0.6)),
        ("timesteps", "300,450", (300, 450)),
        ("timesteps", 300, (300,)),
        ("layers", "16", 16),
        ("layers", "mid_block, up_blocks.1", ("mid_block", "up_blocks.1")),
        ("layers", "card", "card"),
        ("tokens", "0,2", (0, 2)),
        ("layers", "all", "all"),
        ("tokens", "word:left lung", "word:left lung"),
        ("sparse", "entmax15", "entmax15"),
        ("threshold", "0.5", 0.5),
        ("threshold", "quantile:0.9", "quantile:0.9"),
        ("absent_below", "none", None),
        ("absent_below", "0.2", 0.2),
        ("sigma", "0.01", 0.01),
    ],
)
def test_text_is_read(knob, text, value) -> None:
    assert getattr(resolve("paper", **{knob: text}), knob) == value


@pytest.mark.parametrize(
    ("knob", "value", "remedy"),
    [
        ("path", "pndm", "use ddim, noise, resample"),
        ("steps", 0, "from 1 to 1000"),
        ("steps", "many", "whole numbers"),
        ("steps", 2.5, "whole numbers"),
        ("window", "180:120", "START < STOP"),
        ("window", "0.4:1.6", "fractions"),
        ("window", (0.4, 0.4), "START < STOP"),
        ("window", "120", "START:STOP"),
        ("timesteps", "-5", "whole numbers from 0"),
        ("timesteps", [], "whole numbers from 0"),
        ("draws", 0, "from 1"),
        ("tokens", "word:", "word:WORD"),
        ("tokens", "everything", "word:WORD"),
        ("tokens", "tagged:", "tagged:NAME"),
        ("sparse", "entmax", "off, entmax15, sparsemax"),
        ("mask", "gmm", "mixture"),
        ("normalise", "softmax", "minmax, final, none"),
        ("sigma", float("nan"), "from 0 to 0.5"),
        ("threshold", "quantile:2", "quantile:Q"),
        ("threshold", "li", "quantile:Q"),
        ("threshold", 1.5, "number from 0 to 1"),
        ("min_area", -0.1, "from 0 to 1"),
        ("absent_below", 2, "from 0 to 1"),
        ("fit", "stretch", "pad, crop"),
        ("seed", -1, "from 0"),
        ("layers", (), "names"),
    ],
)
def test_invalid_values_are_refused_with_the_remedy(knob, value, remedy) -> None:
    with pytest.raises(UsageError) as refusal:
        resolve("paper", **{knob: value})
    message = str(refusal.value)
    assert knob in message
    assert remedy in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("path", "resample"),
        ("tokens", "tagged"),
        ("tokens", "tagged:en_core_sci_sm"),
        ("bbm", "paper"),
        ("mask", "mixture"),
        ("threshold", "mixture"),
    ],
)
def test_what_is_part_of_a_preset_goes_with_no_other(knob, value) -> None:
    for preset in ("fast", "paper"):
        with pytest.raises(UsageError, match="part of preset gen2ground; use --preset gen2ground"):
            resolve(preset, **dict[str, Any]({knob: value}))
    assert getattr(resolve("gen2ground", **dict[str, Any]({knob: value})), knob) == value
    assert "preset gen2ground only" in KNOBS[knob].metadata["values"]


OLD: dict[str, Any] = {"path": "redraw", "readout": "softmax", "evidence": "phrase", "alpha": 0.5}


def test_knobs_of_older_versions_are_understood() -> None:
    old = {**OLD, "reduce": "sum", "completion": "off", "enlarge": "nearest", "steps": 9}
    assert modernise("gen2ground", old) == {"path": "resample", "sparse": "off", "steps": 9}
    assert modernise("fast", {"readout": "sparsemax", "absent_below": 0.5}) == {
        "sparse": "sparsemax",
        "absent_below": 0.5,
    }
    card = {"fast": {"reduce": "sum", "enlarge": "bilinear", "draws": 3}}
    assert resolve("fast", card) == resolve("fast", draws=3)


@pytest.mark.parametrize(
    ("preset", "knobs"),
    [
        ("fast", {"evidence": "template"}),
        ("fast", {"completion": "iterated"}),
        ("fast", {"enlarge": "nearest"}),
        ("gen2ground", {"enlarge": "bilinear"}),
        ("fast", {"tokens": "disease"}),
        ("fast", {"tokens": "content"}),
        ("fast", {"normalise": "competition"}),
        ("gen2ground", {"bbm": "elementwise"}),
        ("fast", {"reduce": "mean", "absent_below": 0.3}),
    ],
)
def test_knobs_that_are_no_more_are_not_taken_for_others(preset, knobs) -> None:
    assert modernise(preset, knobs) is None
    with pytest.raises(UsageError, match="the model's card"):
        resolve(preset, {preset: knobs})


def test_unknown_names_are_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="fast or paper or gen2ground"):
        resolve("quick")
    with pytest.raises(UsageError, match="did you mean timesteps"):
        resolve("fast", timestep=3)


def test_settings_of_a_run_are_read_and_are_no_knobs() -> None:
    settings = read_settings({"batch": "4", "dtype": "bfloat16"})
    assert settings == RunSettings(batch=4, dtype="bfloat16")
    assert RunSettings().batch == "auto"
    assert read_settings({"threads": "2"}).threads == 2
    wrongs = [{"dtype": "float8"}, {"threads": "0"}, {"threads": "many"}]
    for wrong in (*wrongs, {"batch": "0"}, {"batch": "4097"}, {"batch": "many"}):
        with pytest.raises(UsageError, match=r"is not valid; use"):
            read_settings(wrong)
    for name in ("batch", "device", "dtype", "threads"):
        assert name not in KNOBS
        with pytest.raises(UsageError, match=f"{name} is a setting of the run .*; use --{name}"):
            resolve(**dict[str, Any]({name: "auto"}))


def test_defaults_as_text_are_read_back() -> None:
    for row in knob_rows():
        for preset, default in row["defaults"].items():
            name = row["knob"]
            got = getattr(resolve(preset, **dict[str, Any]({name: as_text(name, default)})), name)
            assert got == default or got == pytest.approx(default, rel=1e-3)
        assert row["meaning"]
        assert row["values"]


def test_quantile() -> None:
    assert quantile_of("quantile:0.25") == 0.25
    assert quantile_of("otsu") is None


def test_options_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Options().steps = 3  # type: ignore[misc]


def test_options_and_cards_import_neither_torch_nor_diffusers() -> None:
    code = (
        "import sys, cxrg.options, cxrg.model.card; cxrg.model.card.known_cards();"
        "print([name for name in ('torch', 'diffusers', 'transformers', 'cv2') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
