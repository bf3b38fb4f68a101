"""One training run from its configuration to a folder that `cxrg.load` reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from numpy.typing import NDArray
from transformers import BertModel, PreTrainedTokenizerFast

from cxrg.errors import InputError, UsageError
from cxrg.files import atomic_write
from cxrg.learn.log import Log, Progress
from cxrg.learn.train import diffusion
from cxrg.learn.train.autoencoder import encode_all, train_autoencoder
from cxrg.learn.train.backgrounds import read_backgrounds
from cxrg.learn.train.config import TrainConfig
from cxrg.learn.train.export import export
from cxrg.learn.train.pool import Background, Pool, Sources, make_pool, read_pool
from cxrg.learn.train.segmenter import STRUCTURES, train_segmenter
from cxrg.learn.train.text import new_text_encoder, train_tokenizer
from cxrg.learn.trainer import Trainer
from cxrg.model.checkpoint.networks import quiet_libraries
from cxrg.phantom import sample
from cxrg.phantom.nodules import read_crops


def run(settings: TrainConfig, *, out: Path, resume: bool, progress: Progress) -> Path:
    """Train a compact model.

    Args:
        settings: see `cxrg.learn.train.config`.
        out: the run's folder: checkpoints, ``log.jsonl``, ``model/``, and ``model-STEP/`` for every
            snapshot.
        resume: continue the run in the folder; without it the folder must be new or empty.
        progress: called with stage, step and steps.

    Returns:
        The diffusers-format folder of the trained model.

    Raises:
        InputError: the backgrounds cannot be read.
        UsageError: the folder holds a run and ``resume`` is not given.
    """
    if out.exists() and any(out.iterdir()) and not resume:
        raise UsageError(f"{out}: holds files already; give --resume or another --out")
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log.jsonl").open("a", encoding="utf-8") as file, quiet_libraries():
        log = Log(file=file, progress=progress)
        pool = _pool(settings, out, log)
        vae = _autoencoder(settings, pool, out, log)
        tokenizer = _tokenizer(settings, out)
        latents = _latents(vae, pool, out)
        # Training steps read latents: free the pictures' memory.
        pool = replace(pool, images=pool.images[:0].copy())
        write = partial(export, vae=vae, tokenizer=tokenizer, settings=settings)

        def check(trainer: Trainer[diffusion.Pair]) -> None:
            if trainer.step in settings.diffusion.snapshots:
                write(out / f"model-{trainer.step}", pair=trainer.average, step=trainer.step)

        trained = _diffusion(settings, tokenizer, pool, latents, out, check, log)
        return write(out / "model", pair=trained.average.eval(), step=trained.step)


def _segmenter(settings: TrainConfig, out: Path, log: Log) -> UNet2DModel:
    folder = out / "segmenter"
    if folder.exists():
        kept: UNet2DModel = UNet2DModel.from_pretrained(folder)
        return kept.eval()
    table = settings.segmenter
    images, masks = [], []
    for index in range(table.phantoms):
        phantom = sample.render(9_000_000_000 + index, side=table.side)
        images.append(np.round(phantom.image * 255).astype(np.uint8))
        masks.append(np.stack([phantom.regions[name] for name in STRUCTURES]))
        log("phantoms", index + 1, table.phantoms, 0.0)
    checkpoint = out / "segmenter.pt"
    net = train_segmenter(np.stack(images), np.stack(masks), table, log, checkpoint)
    net.save_pretrained(folder)
    checkpoint.unlink(missing_ok=True)
    return net


def _pool(settings: TrainConfig, out: Path, log: Log) -> Pool:
    data = settings.data
    folder = Path(data.backgrounds)
    if data.drawn_on_real and not (data.backgrounds and folder.is_dir()):
        raise InputError(
            f"data.backgrounds {data.backgrounds!r} is no folder; "
            "name one, or set data.drawn_on_real = 0"
        )

    def sources() -> Sources:
        net = _segmenter(settings, out, log)
        chests = read_backgrounds(folder, data.side, net, log, strict=data.lifelike)
        normals: tuple[Background, ...] = ()
        if data.normals:
            normals = read_backgrounds(
                Path(data.normals),
                data.side,
                net,
                log,
                held_out=data.held_out,
                strict=data.lifelike,
            )
        crops = read_crops(Path(data.nodules)) if data.nodules else ()
        return Sources(chests=chests, normals=normals, crops=crops)

    return read_pool(make_pool(data, sources, out / "pool", log))


def _autoencoder(settings: TrainConfig, pool: Pool, out: Path, log: Log) -> AutoencoderDC:
    start = settings.diffusion.start
    folder = Path(start) / "vae" if start else out / "vae"
    if not folder.exists():
        checkpoint = out / "autoencoder.pt"
        model = train_autoencoder(
            pool.images, settings.autoencoder, settings.data.seed, log, checkpoint
        )
        model.save_pretrained(folder)
        checkpoint.unlink(missing_ok=True)
    # A shipped model is stored in half precision.
    kept: AutoencoderDC = AutoencoderDC.from_pretrained(folder, torch_dtype=torch.float32)
    return kept.eval()


def _tokenizer(settings: TrainConfig, out: Path) -> PreTrainedTokenizerFast:
    start = settings.diffusion.start
    folder = Path(start) / "tokenizer" if start else out / "tokenizer"
    if not folder.exists():
        train_tokenizer(settings.text, settings.data.seed).save_pretrained(folder)
    kept: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return kept


def _latents(vae: AutoencoderDC, pool: Pool, out: Path) -> NDArray[np.float16]:
    path = out / "latents.npy"
    if not path.exists():
        scale = float(vae.config["scaling_factor"])
        made = (encode_all(vae, pool.images) * scale).astype(np.float16)
        with atomic_write(path) as file:
            np.save(file, made)
    latents: NDArray[np.float16] = np.load(path)
    if len(latents) != len(pool.images):
        raise UsageError(f"{path}: made for another pool; remove it and give --resume again")
    return latents


def _new_pair(settings: TrainConfig, latent_channels: int, grid: int, words: int) -> diffusion.Pair:
    unet = diffusion.new_unet(settings.diffusion, grid, latent_channels, settings.text.width)
    return diffusion.Pair(unet, new_text_encoder(settings.text, words))


def _take_up(pair: diffusion.Pair, folder: Path) -> None:
    """Give a pair the weights of a model's folder.

    Raises:
        InputError: the folder holds no such networks, or of other sizes.
    """
    try:
        unet = UNet2DConditionModel.from_pretrained(folder / "unet")
        text = BertModel.from_pretrained(folder / "text_encoder", add_pooling_layer=False)
        # Copied into the pair's own float32.
        pair.unet.load_state_dict(unet.state_dict())
        pair.text_encoder.load_state_dict(text.state_dict())
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{folder}: this recipe cannot train these weights further ({error}); "
            "correct [diffusion] start"
        ) from error


def _diffusion(
    settings: TrainConfig,
    tokenizer: PreTrainedTokenizerFast,
    pool: Pool,
    latents: NDArray[np.float16],
    out: Path,
    check: Callable[[Trainer[diffusion.Pair]], None],
    log: Log,
) -> Trainer[diffusion.Pair]:
    torch.manual_seed(settings.data.seed)
    channels, grid = latents.shape[1], latents.shape[2]
    pair = _new_pair(settings, channels, grid, len(tokenizer))
    if settings.diffusion.start:
        _take_up(pair, Path(settings.diffusion.start))
    watched = diffusion.watched_layers(pair.unet)
    objective = diffusion.Objective(
        config=settings.diffusion,
        tokenizer=tokenizer,
        length=settings.text.length,
        alphas=diffusion.new_scheduler().alphas_cumprod,
        layers=watched,
        read=tuple(name for name in watched if name.startswith(tuple(settings.reading["layers"]))),
    )
    return diffusion.train_diffusion(
        pair,
        pool,
        latents,
        objective,
        settings.data.seed,
        log,
        checkpoint=out / "checkpoint.pt",
        check=check,
    )
