"""Options: presets, what a card may change, text as a command line has it, and refusals."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cxrg.errors import UsageError
from cxrg.model.card import Card
from cxrg.options import DEFAULT_PRESET, PRESETS, Options, quantile_of, resolve


def test_paper_is_the_published_procedure() -> None:
    paper = PRESETS["paper"]
    assert (paper.path, paper.steps, paper.window) == ("ddim", 300, (120, 180))
    assert (paper.tokens, paper.reduce, paper.normalise, paper.mask) == (
        *("all", "mean", "minmax", "otsu"),
    )
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
        presets={"fast": {"timesteps": [100, 200], "absent_below": 0.3, "reduce": "sum"}},
    )
    options = resolve("fast", card, absent_below=0.5)
    assert (options.timesteps, options.absent_below, options.reduce) == ((100, 200), 0.5, "sum")
    assert resolve("paper", card) == PRESETS["paper"]


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
        ("tokens", "tagged:en_core_sci_sm", "tagged:en_core_sci_sm"),
        ("tokens", "disease", "disease"),
        ("threshold", "mixture", "mixture"),
        ("threshold", "0.5", 0.5),
        ("threshold", "quantile:0.9", "quantile:0.9"),
        ("absent_below", "none", None),
        ("absent_below", "0.2", 0.2),
        ("sigma", "0.01", 0.01),
        ("evidence", "template", "template"),
        ("alpha", "0.25", 0.25),
    ],
)
def test_text_is_read(knob, text, value) -> None:
    assert getattr(resolve("paper", **{knob: text}), knob) == value


@pytest.mark.parametrize(
    ("knob", "value", "remedy"),
    [
        ("path", "pndm", "ddim or noise"),
        ("steps", 0, "from 1 to 1000"),
        ("steps", "many", "whole number"),
        ("steps", 2.5, "whole number"),
        ("window", "180:120", "START < STOP"),
        ("window", "0.4:1.6", "fractions"),
        ("window", "120", "START:STOP"),
        ("timesteps", "-5", "whole numbers from 0"),
        ("timesteps", [], "whole numbers from 0"),
        ("draws", 0, "from 1"),
        ("tokens", "word:", "word:WORD"),
        ("tokens", "everything", "word:WORD"),
        ("tokens", "tagged:", "tagged:NAME"),
        ("readout", "entmax", "softmax or entmax15 or sparsemax"),
        ("completion", "yes", "off or self-attention"),
        ("enlarge", "cubic", "bilinear or nearest"),
        ("mask", "gmm", "mixture"),
        ("bbm", "paper", "it goes with path redraw"),
        ("reduce", "max", "mean or sum"),
        ("evidence", "sentence", "phrase or template"),
        ("alpha", 1.5, "from 0 to 1"),
        ("alpha", "half", "from 0 to 1"),
        ("normalise", "softmax", "minmax or final or competition or none"),
        ("sigma", float("nan"), "from 0 to 0.5"),
        ("threshold", "quantile:2", "quantile:Q"),
        ("threshold", "li", "quantile:Q"),
        ("threshold", 1.5, "number from 0 to 1"),
        ("min_area", -0.1, "from 0 to 1"),
        ("absent_below", 2, "0 to 1"),
        ("fit", "stretch", "pad or crop"),
        ("dtype", "float8", "float32"),
        ("seed", -1, "from 0"),
        ("layers", (), "names"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_remedy(knob, value, remedy) -> None:
    with pytest.raises(UsageError) as refusal:
        resolve("paper", **{knob: value})
    message = str(refusal.value)
    assert knob in message
    assert remedy in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("preset", "knobs", "remedy"),
    [
        ("fast", {"tokens": "content"}, "use tokens=all"),
        ("fast", {"tokens": "0,1"}, "use tokens=all"),
        ("fast", {"normalise": "competition"}, "use normalise=final"),
        ("gen2ground", {"tokens": "all"}, "use bbm=off"),
    ],
)
def test_templates_refuse_what_has_no_meaning_for_two_maps(preset, knobs, remedy) -> None:
    with pytest.raises(UsageError) as refusal:
        resolve(preset, evidence="template", **knobs)
    assert str(refusal.value).startswith("evidence 'template' cannot be meant; ")
    assert str(refusal.value).endswith(remedy)
    assert "\n" not in str(refusal.value)
    assert resolve("gen2ground", evidence="template", tokens="all", bbm="off").alpha == 0.5


def test_unknown_names_are_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="fast or paper or gen2ground"):
        resolve("quick")
    with pytest.raises(UsageError, match="did you mean timesteps"):
        resolve("fast", timestep=3)


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
