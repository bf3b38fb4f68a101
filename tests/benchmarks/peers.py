"""Time cxrg against the published procedure and DAAM's capture, with the same weights and phrases.

``python -m tests.benchmarks.peers [--model NAME] [--steps N --window A:B] [--repeat N]``

*Published*: the oracle of the tests, which runs every step of arXiv 2404.12920's code with two rows
and explicit attention, for one phrase at a time. *DAAM's capture* (Tang et al., ACL 2023): the same
latents as cxrg's, but a whole evaluation for each with explicit probabilities stored in every
cross-attention layer, enlarged bicubically and averaged. All run in turn in one process; a ratio is
the median of the ratios within one turn, so that a machine that is busy slows both sides alike.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

from tests.benchmarks.common import PHRASES, markdown, picture

from tests.oracles import naive  # isort: skip - found through common
from cxrg.attention.layers import choose_layers, cross_attention_layers
from cxrg.grounding import ground
from cxrg.image.read import CxrImage
from cxrg.latents.route import route_of
from cxrg.model.find import find
from cxrg.model.load import load
from cxrg.model.model import Model
from cxrg.options import Options, resolve

Maps = list[np.ndarray]


@dataclass(frozen=True)
class Peers:
    """Methods that ground the same phrases in the same image."""

    model: Model
    image: CxrImage
    scheduler: dict[str, Any]
    paper: Options
    fast: Options

    def cxrg(self, options: Options, phrases: Sequence[str]) -> Maps:
        options = replace(options, mask="none")
        found = ground(self.image, list(phrases), model=self.model, options=options)
        return [result.canonical for result in found]

    def published(self, phrases: Sequence[str]) -> Maps:
        names = [layer.name for layer in cross_attention_layers(self.model.denoiser, 1)]
        layers = [names.index(name) for name in choose_layers(self.model, self.paper.layers)]
        how: dict[str, Any] = {
            "steps": self.paper.steps,
            "window": self.paper.window,
            "layers": layers,
        }
        return [
            naive.heatmap(self.model, self.scheduler, self.image.pixels, text, mask=False, **how)
            for text in phrases
        ]

    @torch.no_grad()
    def daam(self, options: Options, phrases: Sequence[str]) -> Maps:
        model, found = self.model, []
        posterior = model.posterior(self.image.pixels)
        latents = list(route_of(options, model.schedule).latents(model, *posterior))
        for text in phrases:
            context = model.encode_text([text]).embeds
            own = slice(1, len(model.tokenizer(text)["input_ids"]) - 1)
            total = torch.zeros(model.side, model.side)
            with naive.explicit_attention(model.denoiser) as seen:
                for t, z in latents:
                    seen.clear()
                    model.denoiser(z, t, encoder_hidden_states=context)
                    total += sum(_enlarged(probability, own, model.side) for probability in seen)
            found.append(total.numpy())
        return found


def _enlarged(probability: torch.Tensor, own: slice, side: int) -> torch.Tensor:
    """One layer's map of the phrase's tokens, ``(side, side)``."""
    heads = probability[0][..., own].mean(-1)
    grid = round(heads.shape[1] ** 0.5)
    size = (side, side)
    maps = torch.nn.functional.interpolate(heads.view(-1, 1, grid, grid), size, mode="bicubic")
    return maps.mean((0, 1))


def make_peers(name: str, knobs: dict[str, Any]) -> Peers:
    """Load a model and choose the options of both presets."""
    torch.manual_seed(0)
    model = load(name)
    folder, _ = find(name, revision=None, offline=True)
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    paper = resolve("paper", model.card.presets, fit="pad", **knobs)
    return Peers(model, picture(model.side), scheduler, paper, resolve("fast", model.card.presets))


def compare(peers: Peers, count: int, repeats: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of every way, turn by turn; and the largest difference from the published maps."""
    phrases = PHRASES[:count]
    methods: dict[str, Callable[[], Maps]] = {
        "published": lambda: peers.published(phrases),
        "DAAM's capture, paper": lambda: peers.daam(peers.paper, phrases),
        "cxrg paper": lambda: peers.cxrg(peers.paper, phrases),
        "DAAM's capture, fast": lambda: peers.daam(peers.fast, phrases),
        "cxrg fast": lambda: peers.cxrg(peers.fast, phrases),
    }
    methods["cxrg fast"]()  # the first evaluation of a process is slow
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    maps: dict[str, Maps] = {}
    for _ in range(repeats):
        for name, run in methods.items():
            start = perf_counter()
            maps[name] = run()
            seconds[name].append(perf_counter() - start)
    pairs = zip(maps["published"], maps["cxrg paper"], strict=True)
    return seconds, max(float(np.abs(a - b).max()) for a, b in pairs)


def against(seconds: dict[str, list[float]], slow: str, quick: str) -> float:
    """How many times faster: the median over turns."""
    return median(a / b for a, b in zip(seconds[slow], seconds[quick], strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="compact")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--window", default="120:180")
    parser.add_argument("--phrases", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args(arguments)
    peers = make_peers(given.model, {"steps": given.steps, "window": given.window})
    for count in given.phrases:
        seconds, difference = compare(peers, count, given.repeat)
        print(f"\n{count} phrase(s); cxrg paper differs from published by {difference:.1e}\n")
        rows = []
        for name, times in seconds.items():
            row = [name, f"{median(times):.3f}", f"{against(seconds, 'published', name):.1f}"]
            way, _, preset = name.partition(" ")
            other = f"DAAM's capture, {preset}"
            row.append(f"{against(seconds, other, name):.1f}" if way == "cxrg" else "")
            rows.append(row)
        head = ["way", "s", "times faster than published", "than DAAM's capture"]
        print(markdown(head, rows))


if __name__ == "__main__":
    main()
