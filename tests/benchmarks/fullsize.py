"""Run `cxrg ground` with models of full size and random weights, and print the memory it took.

``python -m tests.benchmarks.fullsize [--size sd15 --size monai] [--knobs "fast draws=1"]``

The weights are written as a diffusers folder, in float32, then a process of its own reads them and
grounds one phrase in the shipped example. Its highest resident memory is compared with the size of
the weights; the command fails where it is more than 1.5 GiB above.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from cxrg.bench.random_model import random_model, sizes_of
from cxrg.model.card import CARD_FILE
from tests.benchmarks.common import markdown

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "left_basal_opacity.dcm"
MOST_ABOVE = 1.5  # GiB


def write_model(name: str, folder: Path) -> int:
    """Write a random model of that size; bytes of its weights."""
    model = random_model(name, device="cpu", dtype="float32")
    for part, network in (
        ("vae", model.vae),
        ("unet", model.denoiser),
        ("text_encoder", model.text_encoder),
        ("tokenizer", model.tokenizer),
    ):
        network.save_pretrained(folder / part)
    write_json(folder / "scheduler" / "scheduler_config.json", sizes_of(name).scheduler)
    facts = {key: value for key, value in asdict(model.card).items() if value}
    write_json(folder / CARD_FILE, facts)
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def write_json(path: Path, facts: Mapping[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(facts))


def run(name: str, knobs: str) -> list[str]:
    """Ground with one size and one set of knobs: a row of the table."""
    preset, *settings = knobs.split()
    with TemporaryDirectory() as place:
        folder = Path(place, name)
        # In a process of its own, so that its memory does not count.
        write = [sys.executable, "-m", "tests.benchmarks.fullsize", "--write", name, str(folder)]
        weights = int(subprocess.run(write, check=True, capture_output=True).stdout)
        command = [sys.executable, "-m", "cxrg", "ground", str(EXAMPLE), "left basal opacity"]
        command += ["--model", str(folder), "--preset", preset, "--out", str(Path(place, "out"))]
        command += [f"--{setting.replace('_', '-')}" for setting in settings]
        start = perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - start
        if status:
            raise SystemExit(f"{' '.join(command)} failed")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
    figures = [each / 2**30 for each in (weights, peak, peak - weights)]
    return [name, knobs, *(f"{each:.2f}" for each in figures), f"{seconds:.0f}"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", action="append", help="default: sd15 and monai")
    parser.add_argument("--knobs", action="append", help="a preset's name, then KNOB=VALUE ...")
    parser.add_argument("--write", nargs=2, metavar=("SIZE", "FOLDER"), help="write only")
    given = parser.parse_args(arguments)
    if given.write:
        print(write_model(given.write[0], Path(given.write[1])))
        return
    head = ["model", "options", "weights, GiB", "peak, GiB", "above, GiB", "s"]
    print(markdown(head, []), flush=True)
    over = False
    for name in given.size or ("sd15", "monai"):
        for knobs in given.knobs or ("fast",):
            row = run(name, knobs)
            over = over or float(row[4]) > MOST_ABOVE
            print(f"| {' | '.join(row)} |", flush=True)
    if over:
        raise SystemExit(f"more than {MOST_ABOVE} GiB above the weights")


if __name__ == "__main__":
    main()
