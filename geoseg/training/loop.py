"""The training itself: steps, moving average, validation, checkpoints, and the bundle that comes out."""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from safetensors.torch import load, save

from geoseg.errors import EnvironmentFault
from geoseg.model import load_bundle, save_bundle, weights_path
from geoseg.model.network import network_of
from geoseg.training.augment import Batch, batch_of
from geoseg.training.board import Board
from geoseg.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_atomically
from geoseg.training.examples import draw_examples
from geoseg.training.initial import initialise
from geoseg.training.losses import SegmentationLoss
from geoseg.training.record import draw_curves, plain, write_picture
from geoseg.training.samples import SampleIndex, gather
from geoseg.training.teacher import Teacher
from geoseg.training.validate import best_bias, bf16_agreement, headline, temperature, validate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from geoseg.model import ModelBundle
    from geoseg.training.config import FitConfig, TrainConfig

Weights = dict[str, torch.Tensor]

_LOG_EVERY = 10


def train(
    config: TrainConfig, out: Path, *, resume: bool = True, progress: Callable[[str], None] | None = None
) -> ModelBundle:
    """Train a network and leave in `out` the best on the places held out: bundle/, and its record.

    The record is history.json (loss, rate, scores by step), config.yaml, curves.png, and examples.png of places held
    out; tensorboard/ where that is asked for.

    A run that was interrupted goes on from `out/checkpoint.pt`, and its result is bit for bit that of one that was not
    (on one machine, with as many threads); with `resume` off it starts anew. `progress` gets one line at a time.
    Raises UsageError where the checkpoint is of another configuration; `fit.steps` and the words of the bundle may
    differ.
    """
    out.mkdir(parents=True, exist_ok=True)
    run = _Run(config, out, progress or (lambda _: None))
    checkpoint = load_checkpoint(out / "checkpoint.pt", plain(config)) if resume else None
    run.start(checkpoint)
    try:
        run.steps()
        return run.finish()
    finally:
        run.close()


class _Run:
    """One training: what changes from step to step, and the moves on it."""

    def __init__(self, config: TrainConfig, out: Path, say: Callable[[str], None]) -> None:
        self.config, self.out, self.say = config, out, say
        if config.fit.threads:
            torch.set_num_threads(config.fit.threads)
        training, self.held_out = gather(config)
        self.index = SampleIndex(config, training)
        say(f"{len(training)} scenes to train on, {len(self.held_out)} held out")
        torch.manual_seed(config.seed)
        bundle = config.bundle
        self.device = _device(config.fit.device)
        self.network = network_of(bundle).to(memory_format=torch.channels_last)
        self.judged = network_of(bundle).to(memory_format=torch.channels_last)
        taken = initialise(self.network, config.network, config.bands, config.legend)
        say(f"{bundle.architecture} on {bundle.encoder}, on {self.device}: {taken} tensors from elsewhere")
        self.network.to(self.device)
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.network, config.fit))
        self.loss = SegmentationLoss(config.fit).to(self.device)
        self.teacher = Teacher(config, config.teacher, self.device) if config.teacher else None
        self.average: Weights = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.step, self.best, self.seconds = 0, -1.0, 0.0
        self.history: list[dict[str, Any]] = []
        self.losses: list[float] = []
        """Of the batches of this step."""
        self.board: Board | None = None

    def start(self, checkpoint: Checkpoint | None) -> None:
        """Take up where a checkpoint left off."""
        write_atomically(self.out / "config.yaml", yaml.safe_dump(plain(self.config), sort_keys=False).encode())
        if self.config.fit.tensorboard:
            self.board = Board(self.out, checkpoint.step if checkpoint else 0)
        if checkpoint is None:
            return
        self.network.load_state_dict(checkpoint.network)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.average = {key: value.to(self.device) for key, value in checkpoint.average.items()}
        self.step, self.best = checkpoint.step, checkpoint.best
        self.history, self.seconds = checkpoint.history, checkpoint.seconds
        torch.set_rng_state(checkpoint.random)
        self.say(f"goes on from step {self.step}")

    def steps(self) -> None:
        """All steps that are left; the next batch is made while the network works on this one."""
        fit = self.config.fit
        started, before = time.monotonic(), self.seconds
        with ThreadPoolExecutor(1) as ahead:
            batch = ahead.submit(self._batch, self.step * fit.accumulate)
            while self.step < fit.steps and not self._given_up():
                self._begin()
                for part in range(self.step * fit.accumulate, (self.step + 1) * fit.accumulate):
                    now = batch.result()
                    if part + 1 < fit.steps * fit.accumulate:
                        batch = ahead.submit(self._batch, part + 1)
                    self._learn(now)
                self._step()
                self.seconds = before + time.monotonic() - started
                if self.step % fit.validate_every == 0 or self.step == fit.steps:
                    self._validate()
                if self.step % fit.checkpoint_every == 0 or self.step == fit.steps or self._given_up():
                    self._save()

    def _batch(self, number: int) -> Batch:
        return batch_of(self.index, self.config, number).to(self.device)

    def _given_up(self) -> bool:
        """Whether the last looks at the places held out, as many as `fit.patience`, were none better."""
        reached = [row["validation"]["mean_iou"] for row in self.history if "validation" in row]
        patience = self.config.fit.patience
        return bool(patience) and len(reached) - 1 - int(np.argmax([*reached, -1.0])) >= patience

    def _begin(self) -> None:
        fit = self.config.fit
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(self.step, fit)
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        if self.teacher is not None:
            self.teacher.follow(self.average)
        self.losses = []

    def _learn(self, batch: Batch) -> None:
        fit = self.config.fit
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fit.precision == "bf16"):
            logits = self.network(batch.images).float()
        loss = self.loss(logits, batch.truth)
        if self.teacher is not None:
            loss = loss + self.teacher.loss(logits, batch, self.step)
        (loss / fit.accumulate).backward()
        self.losses.append(loss.item())

    def _step(self) -> None:
        fit = self.config.fit
        rate = fit.learning_rate * schedule(self.step, fit)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), fit.clip)
        self.optimizer.step()
        self.step += 1
        update_average(self.average, self.network.state_dict(), min(fit.ema, self.step / (self.step + 10)))
        self.history.append({"step": self.step, "loss": sum(self.losses) / len(self.losses), "learning_rate": rate})
        if self.board:
            self.board.learnt(self.step, self.history[-1]["loss"], rate)
        if self.step % _LOG_EVERY == 0:
            mean = sum(row["loss"] for row in self.history[-_LOG_EVERY:]) / _LOG_EVERY
            self.say(f"step {self.step}/{fit.steps}  loss {mean:.4f}  {self.seconds:.0f} s")

    def _validate(self) -> None:
        """Judge the average as it would be stored, and store it if it is the best so far."""
        weights = {key: value.cpu() for key, value in stored_weights(self.average).items()}
        self.judged.load_state_dict(weights)
        scores = validate(self.judged, self.config, self.held_out, limit=self.config.fit.validation_windows)
        reached = headline(scores)
        self.history[-1]["validation"] = {"mean_iou": reached, "scores": scores}
        better = reached > self.best
        for source, parts in scores.items():
            for variant, part in parts.items():
                if isinstance(part, dict):
                    ious = "  ".join(f"{n} {_shown(c['iou'])}" for n, c in part["classes"].items())
                    self.say(f"  {source} {variant}: {ious}")
        self.say(f"  step {self.step}: mean IoU {reached:.4f}{' (best so far)' if better else ''}")
        self.best = max(self.best, reached)
        if self.board:
            self.board.judged(self.step, scores, reached, draw_examples(self.judged, self.config, self.held_out))
        if better or self.config.fit.keep == "last":
            bundle = replace(self.config.bundle, scores={"validation": scores, "step": self.step, "all_windows": False})
            save_bundle(bundle, save(weights), self.out / "bundle")

    def _save(self) -> None:
        checkpoint = Checkpoint(
            config=plain(self.config),
            network=self.network.state_dict(),
            average=self.average,
            optimizer=self.optimizer.state_dict(),
            random=torch.get_rng_state(),
            step=self.step,
            best=self.best,
            seconds=self.seconds,
            history=self.history,
        )
        save_checkpoint(checkpoint, self.out / "checkpoint.pt")
        write_atomically(self.out / "history.json", (json.dumps(self.history) + "\n").encode())

    def finish(self) -> ModelBundle:
        """Score the best weights, as stored and with the bias asked for, on all windows of the places held out."""
        folder = self.out / "bundle"
        stored = load_bundle(folder)
        scores = stored.scores
        weights = weights_path(stored).read_bytes()
        wanted, there = list(self.config.fit.bias), scores.get("bias", [])
        agreement = stored.agreement
        tuned, how = self.config.fit.tune_bias, (self.config.fit.tune_bias, self.config.fit.calibrate)
        done = (scores.get("bias_tuned", False), scores.get("calibrated", True))
        if not scores.get("all_windows") or how != done or (wanted != there and not tuned):
            raw = with_temperature(load(weights), 1 / scores.get("temperature", 1.0))
            if tuned:
                self.judged.load_state_dict(with_bias(raw, [], there))
                wanted = best_bias(self.judged, self.config, self.held_out)
                self.say(f"bias {wanted}")
            self.judged.load_state_dict(with_bias(raw, wanted, there))
            found = temperature(self.judged, self.config, self.held_out) if self.config.fit.calibrate else 1.0
            final = with_temperature(with_bias(raw, wanted, there), found)
            weights = save(final)
            self.judged.load_state_dict(final)
            judged = validate(self.judged, self.config, self.held_out)
            scores = {
                "validation": judged,
                "step": scores["step"],
                "bias": wanted,
                "bias_tuned": tuned,
                "temperature": found,
                "calibrated": self.config.fit.calibrate,
                "all_windows": True,
            }
            agreement = {}
        if not agreement:
            self.judged.load_state_dict(load(weights))
            agreement = {"bf16": round(bf16_agreement(self.judged, self.config, self.held_out), 5)}
        bundle = save_bundle(replace(self.config.bundle, scores=scores, agreement=agreement), weights, folder)
        draw_curves(self.history, self.out / "curves.png")
        self.judged.load_state_dict(load(weights))
        if examples := draw_examples(self.judged, self.config, self.held_out):
            write_picture(examples, self.out / "examples.png")
        self.say(f"wrote {folder}")
        return bundle

    def close(self) -> None:
        """Write what is kept for others to read."""
        if self.board:
            self.board.close()


def schedule(step: int, fit: FitConfig) -> float:
    """The learning rate of a step (from 0) relative to its peak: linear warm-up, then cosine to a hundredth."""
    if step < fit.warmup:
        return (step + 1) / fit.warmup
    done = (step - fit.warmup) / max(1, fit.steps - fit.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def update_average(average: Weights, weights: Weights, keep: float) -> None:
    """Move `average` towards `weights` in place: keep * average + (1 - keep) * weights; counters are copied."""
    for key, value in weights.items():
        if value.is_floating_point():
            average[key].lerp_(value, 1 - keep)
        else:
            average[key].copy_(value)


def stored_weights(weights: Weights) -> Weights:
    """As a bundle stores them: matrices and kernels in float16, vectors and statistics as they are."""
    return {
        key: (value.half() if value.is_floating_point() and value.ndim > 1 else value).contiguous().clone()
        for key, value in weights.items()
    }


def with_temperature(weights: Weights, temperature: float) -> Weights:
    """Weights whose logits are divided by a temperature: those of the last layer are."""
    last = [key for key in weights if key.startswith("segmentation_head.")][-2:]
    return {**weights, **{key: (weights[key].float() / temperature).to(weights[key].dtype) for key in last}}


def with_bias(weights: Weights, wanted: list[float], there: list[float]) -> Weights:
    """Weights whose last layer adds `wanted` to the logits of classes instead of `there`; empty lists add nothing."""
    last = [key for key in weights if key.startswith("segmentation_head.") and key.endswith(".bias")][-1]
    classes = len(weights[last])
    more = torch.tensor(wanted or [0.0] * classes) - torch.tensor(there or [0.0] * classes)
    return {**weights, last: weights[last] + more}


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted != "cpu" and int(wanted.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise EnvironmentFault(f"fit.device {wanted}: this machine shows {torch.cuda.device_count()} CUDA devices")
    return torch.device(wanted)


def _parameter_groups(network: torch.nn.Module, fit: FitConfig) -> list[dict[str, Any]]:
    """Encoder and decoder with their own peak rates; vectors (norms, biases) without decay."""
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        groups.setdefault((name.startswith("encoder."), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "peak": fit.learning_rate * (fit.encoder_factor if encoder else 1.0),
            "weight_decay": fit.weight_decay if decays else 0.0,
        }
        for (encoder, decays), parameters in groups.items()
    ]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
