"""Weight files as diffusers and transformers name them: check and load take the same ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel

from cxrg.errors import ModelError
from cxrg.model.checkpoint.networks import quiet_libraries
from cxrg.model.checkpoint.weight_files import find_weights
from cxrg.model.load import load
from cxrg.plan import check_folder

KINDS: dict[str, Any] = {"unet": UNet2DConditionModel, "text_encoder": CLIPTextModel}
PRECISIONS: dict[str | None, Any] = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    None: torch.float32,
}


def save_again(folder: Path, part: str, variant: str | None, size: str) -> None:
    """Write a part anew with its library, in a variant and in shards of a size."""
    with quiet_libraries():
        network = KINDS[part].from_pretrained(folder / part)
        shutil.rmtree(folder / part)
        network.to(PRECISIONS[variant]).save_pretrained(
            folder / part, variant=variant, max_shard_size=size
        )


@pytest.mark.parametrize("variant", ["fp16", "bf16", None])
@pytest.mark.parametrize("size", ["40KB", pytest.param("1GB", marks=pytest.mark.slow)])
def test_check_and_load_read_what_the_libraries_write(variant, size, folders, tmp_path, capfd):
    folder = shutil.copytree(folders["sd1"], tmp_path / "sd1")
    for part in KINDS:
        save_again(folder, part, variant, size)
    count = {part: len(list((folder / part).glob("*.safetensors"))) for part in KINDS}
    assert all(number > 1 for number in count.values()) is (size == "40KB")
    capfd.readouterr()
    report = check_folder(folder)
    assert report.problems == ()
    precision = str(PRECISIONS[variant]).removeprefix("torch.")
    assert {part.precision for part in report.parts if part.name in KINDS} == {precision}
    model, plain = load(folder, device="cpu"), load(folders["sd1"], device="cpu")
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")
    ours, theirs = (each.denoiser.state_dict() for each in (model, plain))
    for name, value in theirs.items():
        assert torch.equal(ours[name], value.to(PRECISIONS[variant]).float())


def test_files_without_a_variant_come_first(tmp_path: Path) -> None:
    part = tmp_path / "unet"
    part.mkdir()
    stem = "diffusion_pytorch_model"

    def found(*names: str) -> tuple[str | None, list[str]]:
        for path in part.iterdir():
            path.unlink()
        for name in names:
            (part / name).write_text('{"weight_map": {}}')
        files = find_weights(part)
        return files.variant, [path.name for path in files.paths]

    plain, half, brain = (f"{stem}{v}.safetensors" for v in ("", ".fp16", ".bf16"))
    assert found(brain, half, plain) == (None, [plain])
    assert found(brain, half) == ("fp16", [half])
    assert found(brain, f"{stem}.non_ema.safetensors") == ("bf16", [brain])
    # Shards of old versions of diffusers have the variant behind their number.
    shards = [f"{stem}-0000{index}-of-00002.fp16.safetensors" for index in (1, 2)]
    assert found(*shards, f"{stem}.safetensors.index.fp16.json") == ("fp16", shards)
    assert found(*shards, half) == ("fp16", [half])


def test_shards_need_their_index(folders, tmp_path) -> None:
    folder = shutil.copytree(folders["sd1"], tmp_path / "sd1")
    save_again(folder, "unet", "fp16", "40KB")
    (index,) = (folder / "unet").glob("*.index.fp16.json")
    for content in ("[]", "{}", '{"weight_map": 3}', "{"):
        index.write_text(content)
        (problem,) = check_folder(folder).problems
        assert "index.fp16.json: missing or not an index of shards; copy it again" in problem
    index.unlink()
    with pytest.raises(ModelError, match="missing or not an index of shards"):
        load(folder)
