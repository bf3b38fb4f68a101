"""Training of the view network: what its examples show, and that it learns and resumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cxrg.anatomy.view import KINDS, ViewNet
from cxrg.errors import InputError, UsageError
from cxrg.learn.index import read_index
from cxrg.learn.recipe import read_recipe
from cxrg.learn.view import others
from cxrg.learn.view.examples import Pictures, draw
from cxrg.learn.view.run import ViewConfig, read_chests, read_config, read_slices, train_view

RECIPE = Path(others.__file__).with_name("view.toml")


def marked() -> np.ndarray:
    """A picture that is bright at the top, so that one sees how it was turned."""
    picture = np.full((96, 96), 30, np.uint8)
    picture[10:40, 10:86] = 230
    return picture


def pictures() -> Pictures:
    slices = np.zeros((2, 96, 96), np.uint8)
    slices[:, 30:60] = 200
    return Pictures(chests=(np.stack([marked()] * 2),), slices=slices)


def test_examples_are_in_range_and_of_every_kind() -> None:
    examples = [draw(pictures(), np.random.default_rng(seed)) for seed in range(300)]
    assert {each.kind for each in examples} == set(range(len(KINDS)))
    assert {each.negative for each in examples} == {True, False}
    for each in examples:
        assert each.picture.shape == (64, 64)
        assert each.picture.dtype == np.float32
        assert each.picture.min() >= 0
        assert each.picture.max() <= 1


def test_a_turned_chest_has_its_upper_half_where_its_kind_says() -> None:
    """The bright band is at the top, right, bottom and left."""
    edges: dict[str, list[int]] = {name: [] for name in KINDS[:4]}
    for seed in range(400):
        example = draw(pictures(), np.random.default_rng(seed))
        if KINDS[example.kind] == "other":
            continue
        picture = 1 - example.picture if example.negative else example.picture
        halves = (picture[:32], picture[:, 32:], picture[32:], picture[:, :32])
        sides = [half.mean() for half in halves]
        edges[KINDS[example.kind]].append(int(np.argmax(sides)))
    for place, (name, found) in enumerate(edges.items()):
        assert len(found) > 20, name
        assert np.mean(np.array(found) == place) > 0.8, name


def test_an_example_depends_on_its_seed_alone() -> None:
    one, same, other = (draw(pictures(), np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.picture, same.picture)
    assert not np.array_equal(one.picture, other.picture)


def test_shuffling_keeps_the_grey_values() -> None:
    picture = np.arange(96 * 96, dtype=np.uint32).reshape(96, 96) % 251
    for seed in range(20):
        rng = np.random.default_rng(seed)
        count = int(np.random.default_rng(seed).integers(2, 7))
        if 96 % count:
            continue
        mixed = others.shuffled(picture.astype(np.uint8), rng)
        np.testing.assert_array_equal(np.sort(mixed, None), np.sort(picture, None))


def settings(**changes: int) -> ViewConfig:
    defaults = {"steps": 24, "batch": 8, "seed": 7, **changes}
    return ViewConfig(chests=[], held_out=[], ct="", learning_rate=3e-3, **defaults)


def test_a_short_run_learns_and_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []

    def report(stage: str, step: int, steps: int, loss: float) -> None:
        losses.append(loss)

    whole = train_view(pictures(), settings(), report, tmp_path / "whole.pt")
    assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:10])

    class StopError(Exception):
        pass

    def stop(stage: str, step: int, steps: int, loss: float) -> None:
        if step == 15:
            raise StopError

    monkeypatch.setattr("cxrg.learn.trainer.CHECKPOINT_EVERY", 10)
    with pytest.raises(StopError):
        train_view(pictures(), settings(), stop, tmp_path / "cut.pt")
    resumed = train_view(pictures(), settings(), report, tmp_path / "cut.pt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_packaged_recipe_is_complete() -> None:
    config = read_config(RECIPE, {"steps": "12"})
    assert config.steps == 12
    assert all(Path(each).is_absolute() for each in [*config.chests, config.ct])
    assert callable(read_recipe("view", {}))


def test_wrong_recipes_are_named(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(RECIPE.read_text().replace("batch =", "bunch ="))
    with pytest.raises(InputError, match=r"wrong\.toml: .*batch, bunch; correct them"):
        read_config(wrong, {})
    wrong.write_text('trains = "cats"\n')
    with pytest.raises(InputError, match="trains 'cats' is unknown; use model or view"):
        read_recipe(str(wrong), {})
    with pytest.raises(UsageError, match="'stepz' is unknown"):
        read_recipe("view", {"stepz": "1"})


def test_chests_are_read_from_the_index_without_its_last_rows(tmp_path: Path) -> None:
    import cv2

    for number in range(4):
        grey = np.full((30, 20), 60 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.pad(grey, 10, constant_values=255))
    (tmp_path / "index.csv").write_text("file\n0.png\n1.png\n2.png\n3.png\n")
    found = read_chests(tmp_path, 1, lambda *_: None)
    assert found.shape == (3, 96, 96)
    assert [int(each[48, 48]) for each in found] == [0, 60, 120]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"cannot be read \(FileNotFoundError\)"),
        ("", "needs rows with the columns file and labels"),
        ("file,labels\n", "needs rows with the columns file and labels"),
        ("file\n0.png\n", "needs rows with the columns file and labels"),
        ("file,labels\n0.png\n", "needs rows with the columns file and labels"),
        ("file,labels\n0.png,a\n", "1 rows, all held out; lower held_out"),
        (b"file,labels\n\xff,a\n", r"cannot be read \(UnicodeDecodeError\)"),
    ],
)
def test_an_index_that_cannot_be_used_is_refused_by_name(
    text: str | bytes | None, message: str, tmp_path: Path
) -> None:
    if text is not None:
        content = text.encode() if isinstance(text, str) else text
        (tmp_path / "index.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"index\.csv: {message}"):
        read_index(tmp_path, ("file", "labels"), 1)


def test_slices_of_a_ct_are_upright_and_in_proportion(tmp_path: Path) -> None:
    """A bright box in front, above, on the left: at the top, in the middle of the first slice."""
    nibabel = pytest.importorskip("nibabel")
    volume = np.full((100, 80, 40), -1000, np.int16)
    volume[60:80, 60:78, 30:36] = 400  # right to left, back to front, upwards
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "ct.nii.gz")
    slices = read_slices(tmp_path / "ct.nii.gz")
    axial = slices[11]  # of z = 33
    rows, columns = np.nonzero(axial > 200)
    scale = 96 / 100
    assert rows.min() == pytest.approx(2 * scale + 10 * scale, abs=1.5)  # padded by 10 above
    assert columns.min() == pytest.approx(60 * scale, abs=1.5)
    lateral = slices[-1]
    rows, columns = np.nonzero(lateral > lateral.max() / 2)
    scale = 96 / 80
    assert (rows.min(), columns.min()) == (
        pytest.approx(8 * scale, abs=1.5),
        pytest.approx(60 * scale, abs=1.5),
    )
    with pytest.raises(InputError, match=r"none\.nii: no CT that can be read"):
        read_slices(tmp_path / "none.nii")


def test_the_network_has_six_outputs_for_any_exposure() -> None:
    net = ViewNet().eval()
    x = torch.rand(2, 1, 64, 64)
    assert net(x).shape == (2, 6)
    # Brightness and contrast are taken out, up to the small constant that guards flat pictures.
    torch.testing.assert_close(net(x), net(0.5 * x + 0.3), atol=0.2, rtol=0)
