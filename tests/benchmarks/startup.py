"""Time `cxrg ground` from a cold process against one that only imports and runs the network.

``python -m tests.benchmarks.startup [--repeat N] [--image FILE]``

The other process imports torch and the classes of diffusers and transformers that the shipped model
needs, reads its UNet, and evaluates it once with as many rows as preset ``fast`` reads. Both run in
turn; the ratio is the median over turns, of wall time and of processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

from cxrg.model.card import WEIGHTS, read_card
from cxrg.options import resolve
from tests.benchmarks.common import markdown

FOLDER = WEIGHTS / "compact"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "left_basal_opacity.dcm"

PARTS = ("vae", "unet", "text_encoder")
LEAST = """
import sys
import torch
from diffusers.models.autoencoders.{vae_module} import {vae}
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import AutoTokenizer, {text}
unet = UNet2DConditionModel.from_pretrained(sys.argv[1], use_safetensors=True).eval()
side, channels = unet.config.sample_size, unet.config.in_channels
with torch.inference_mode():
    z = torch.randn({rows}, channels, side, side)
    context = torch.randn({rows}, {length}, unet.config.cross_attention_dim)
    unet(z, 100, encoder_hidden_states=context)
"""


def least_program() -> str:
    """The least program that imports the same and runs the network as often."""
    parts = {part: json.loads((FOLDER / part / "config.json").read_text()) for part in PARTS}
    card = read_card(FOLDER)
    assert card is not None
    fast = resolve("fast", card.presets)
    vae = parts["vae"]["_class_name"]
    return LEAST.format(
        vae=vae,
        vae_module={"AutoencoderDC": "autoencoder_dc", "AutoencoderKL": "autoencoder_kl"}[vae],
        text=parts["text_encoder"]["architectures"][0],
        rows=len(fast.timesteps) * fast.draws,
        length=card.text_length,
    )


def run(command: Sequence[str]) -> tuple[float, float]:
    """Wall and processor seconds of a process.

    Raises:
        SystemExit: it failed.
    """
    start = perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command[:4])} failed:\n{errors}")
    return perf_counter() - start, usage.ru_utime + usage.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--image", type=Path, default=EXAMPLE)
    given = parser.parse_args(arguments)
    ours = ["-m", "cxrg", "ground", str(given.image), "left basal opacity"]
    ours = [sys.executable, *ours, "--format", "none", "--json", "--device", "cpu"]
    least = [sys.executable, "-c", least_program(), str(FOLDER / "unet")]
    turns = []
    for number in range(-1, given.repeat):  # the first turn fills the disk's cache
        pair = run(ours), run(least)
        if number >= 0:
            turns.append(pair)
    rows = []
    for kind, name in enumerate(("wall", "processor")):
        a, b = [x[kind] for x, _ in turns], [y[kind] for _, y in turns]
        ratio = median(x / y for x, y in zip(a, b, strict=True))
        rows.append([name, f"{median(a):.2f}", f"{median(b):.2f}", f"{ratio:.2f}"])
    print(markdown(["time", "cxrg ground, s", "imports and network, s", "ratio"], rows))


if __name__ == "__main__":
    main()
