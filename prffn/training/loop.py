"""One training: random patches, Adam, a checkpoint from which a killed run goes on bit for bit (on the CPU)."""

import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tqdm.auto
from torch import Tensor, nn

from prffn.config import Experiment
from prffn.data.images import image_set, lr_images
from prffn.data.patches import PatchSampler, batches
from prffn.files import TEXT_PROGRESS_VARIABLE, weights_sha256
from prffn.losses import computed_by
from prffn.models import PRFFN, reduced
from prffn.models.interpolating import start_as_interpolation
from prffn.models.pretrained import SIZES
from prffn.training.checkpoint import load_checkpoint, save_checkpoint
from prffn.training.curve import Losses, read_every
from prffn.training.device import device_name, peak_memory_mb, reset_peak_memory
from prffn.training.graphs import with_cuda_graphs
from prffn.training.objective import gradient_norms, loss_terms, weighted
from prffn.training.parallel import Processes, in_parallel
from prffn.training.schedule import Clipping, adam, learning_rate

CURVE_POINTS = 50  # how many points the recorded curve has; each is a mean over the steps since the one before
NOT_RECORDED = "not recorded"
VALIDATE_EVERY = 5  # a run is validated at every fifth point of the curve, and at its end


@dataclass
class Trained:
    """A trained network and what training it took."""

    model: nn.Module
    curve: list[dict[str, float]]
    seconds: float
    peak_memory_mb: float
    made: list[dict[str, Any]]
    """What its bits depend on beside its settings: an entry from each step on from which that was another."""


def build_model(experiment: Experiment) -> nn.Module:
    """The untrained network of an experiment; the same seed gives the same weights."""
    m, scale = experiment.model, experiment.data.scale
    generator = torch.Generator().manual_seed(experiment.seed)
    model: nn.Module
    if m.network == "PRFFN":
        model = PRFFN(scale, **{name: getattr(m, name) for name in SIZES}, generator=generator)
    else:
        model = reduced(m.network, scale, channels=m.channels, groups=m.groups, generator=generator)
    if experiment.training.initial == "interpolating":
        start_as_interpolation(model)
    return model


def take_over(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Puts into the network the weights that have its names and shapes; the others stay as they are.

    RCAN's habit: x3 and x4 start from the body trained at x2, only the upsampler's weights differ in shape.
    Raises ValueError if nothing fits.
    """
    state = model.state_dict()
    fitting = {name: value for name, value in weights.items() if name in state and state[name].shape == value.shape}
    if not fitting:
        raise ValueError("the weights to start from fit no layer of the network; is `start` of another network?")
    model.load_state_dict({**state, **fitting})


def patches_of(e: Experiment) -> PatchSampler:
    """The random patches of an experiment; the same seed gives the same."""
    hr = image_set(e.data.train)
    return PatchSampler(
        hr.images,
        lr_images(hr, e.data.scale),
        scale=e.data.scale,
        patch_size=e.data.patch_size,
        batch_size=e.data.batch_size,
        generator=torch.Generator().manual_seed(2**32 + e.seed),  # apart from the stream of the weights
        names=hr.image_names,
    )


class Training:
    """A training under way: the network on its device, its optimizer and patches, and what it has seen so far."""

    def __init__(self, e: Experiment, processes: Processes, start: Mapping[str, Tensor] | None) -> None:
        config, device = e.training, processes.device
        self.e, self.processes = e, processes
        self.part = processes.part(e.data.batch_size)
        self.share = (self.part.stop - self.part.start) / e.data.batch_size
        model = build_model(e)
        if start is not None:
            take_over(model, start)
        self.sampler = patches_of(e)
        self.drawn = self.sampler.generator.get_state()
        self.memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        self.model = model.to(device=device, memory_format=self.memory_format).train()  # type: ignore[call-overload]
        self.optimizer = adam(self.model, config)
        self.clipping = Clipping(config, device)
        self.step, self.seconds, self.unsaved, self.peak = 0, 0.0, 0.0, 0.0
        self.losses = Losses()
        self.curve: list[dict[str, float]] = []
        self.made: list[dict[str, Any]] = []
        self.interval = max(1, config.steps // CURVE_POINTS)

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over the state of a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sampler.generator.set_state(state["sampler"])
        self.drawn = state["sampler"]
        self.clipping.load(state.get("norms"))
        self.step, self.seconds, self.peak, self.curve = (state[k] for k in ("step", "seconds", "peak", "curve"))
        self.losses.sums = state["sums"]
        self.made = state.get("made", [{"step": 0, "device": NOT_RECORDED}])  # older checkpoints do not say

    def state(self) -> dict[str, Any]:
        """All that the training resumes from."""
        norms = self.clipping.so_far(self.step)
        return {
            "step": self.step, "steps": self.e.training.steps, "seconds": self.seconds,
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "sampler": self.drawn, "curve": self.curve, "sums": self.losses.sums,
            "peak": max(self.peak, peak_memory_mb(self.processes.device)), "made": self.made,
            **({} if norms is None else {"norms": norms}),
        }  # fmt: skip

    def save(self, checkpoint: Path, identity: str) -> None:
        """Writes the checkpoint of a training whose identity this is."""
        save_checkpoint(checkpoint, {"identity": identity, **self.state()})
        self.unsaved = 0.0

    def run(self) -> Generator[bool]:
        """Takes the steps that are left. Yields after each whether it ended a part of the curve."""
        self.last_tick = time.perf_counter()
        config, device = self.e.training, self.processes.device
        here = conditions(self.e, device, self.processes.world_size)
        if self.step < config.steps and (not self.made or {**self.made[-1], "step": 0} != {"step": 0, **here}):
            self.made = [*self.made, {"step": self.step, **here}]
        network: Any = torch.compile(self.model) if config.compiled else self.model
        network = network if self.processes.world_size == 1 else in_parallel(network)
        source = batches(self.sampler, device, self.memory_format, self.part)
        with closing(source):
            while self.step < config.steps:
                lr, hr, self.drawn = next(source)
                if network is self.model:
                    network = with_cuda_graphs(self.model, lr, config)
                yield self._take(network, lr, hr)

    def _take(self, network: nn.Module, lr: Tensor, hr: Tensor) -> bool:
        """One step, from a batch: lr whole, hr this process's part of it. Returns whether it ended a part of the curve.

        The losses are read where a part ends, and every READ_EVERY steps between: a GPU need not wait at others.
        """
        e, processes = self.e, self.processes
        ends = (self.step + 1) % self.interval == 0 or self.step + 1 == e.training.steps
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(e.training, self.step)
        with torch.autocast(processes.device.type, dtype=torch.bfloat16, enabled=e.training.bfloat16):
            sr = network(lr[self.part])
        sr = sr.float()
        batch_mean = partial(processes.mean, share=self.share) if processes.world_size > 1 else None
        terms = loss_terms(sr, hr, lr, e.loss, batch_mean)
        self.losses.add(list(terms), processes.mean(torch.stack(list(terms.values())).detach(), self.share))
        if ends or len(self.losses.unread) >= read_every(processes.device):
            self.losses.read(self.step)
        parts = weighted(terms, e.loss, self.step / e.training.steps)
        squares = None
        if self.validates(self.step + 1) and len(parts) > 1:
            squares = processes.mean(self.share * gradient_norms(parts, sr), self.share)
        self.optimizer.zero_grad(set_to_none=True)
        (sum(parts.values()) * (self.share * processes.world_size)).backward()
        self.clipping.clip(self.model.parameters(), self.step)
        self.optimizer.step()

        self.step += 1
        if ends:
            count = self.step - (int(self.curve[-1]["step"]) if self.curve else 0)
            self.curve.append({"step": self.step, **self.losses.means(count)})
            if squares is not None:
                norms = zip(parts, squares.sqrt().tolist(), strict=True)
                self.curve[-1] |= {f"gradient_{name}": norm for name, norm in norms}
        return ends

    def tick(self) -> None:
        """Counts the seconds since the last call; none where the clock was set back meanwhile."""
        now = time.perf_counter()
        passed, self.last_tick = max(0.0, now - self.last_tick), now
        self.seconds, self.unsaved = self.seconds + passed, self.unsaved + passed

    def validates(self, step: int) -> bool:
        """Whether the network is validated once `step` steps are done."""
        return step % (VALIDATE_EVERY * self.interval) == 0 or step == self.e.training.steps


def train(
    experiment: Experiment,
    *,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    checkpoint_every: float = 60.0,
    start: Mapping[str, Tensor] | None = None,
    validate: Callable[[nn.Module], float] | None = None,
    label: str = "training",
    progress: bool = True,
    processes: Processes | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Trained:
    """Trains the experiment's network, from `checkpoint` where there is one.

    checkpoint: file for the whole state, written every `checkpoint_every` seconds and at the end. A run that was
        killed resumes from it and ends with the same weights as one that was not (bit for bit on the CPU, with the
        same number of threads). A damaged one, or one of another experiment, is not used.
    start: weights to start from, see `take_over`: those of the run experiment.start.
    validate: gives the PSNR in dB of the network; the curve then holds it as `psnr_y` at some ten points and the end.
    on_step: called after each step with the number of steps done.
    processes: those that train this run together, all calling this function, each on its own device; None for one
        alone. Every one draws the whole batch from the same generator and takes its part of it; its gradient is
        weighted by its share, so that what is applied is the gradient of the whole batch, and the curve holds the whole
        batch's losses. The result is that of one process but for the order of float sums, and a checkpoint of one
        number of processes serves another. Rank 0 alone uses `checkpoint`, `start`, `validate` and `progress`.
    Raises NonFiniteLoss naming the step and the term, on all processes if one has met it; ValueError or
    FileNotFoundError if the images cannot be used, ValueError for a batch of fewer samples than processes.
    """
    processes = processes or Processes(device=torch.device(device))
    device = processes.device
    if processes.rank > 0:
        checkpoint, validate, progress, start = None, None, False, None
    elif bool(experiment.start) != (start is not None):
        raise ValueError("`start` must hold the weights of experiment.start, and be None where there is none")
    reset_peak_memory(device)
    training = Training(experiment, processes, start)
    identity = repr(experiment.canonical()) + (f" from {weights_sha256(start)}" if start else "")
    state = load_checkpoint(checkpoint, identity) if checkpoint else None
    state = processes.broadcast(state)  # the others may be on machines that do not see the file
    if state is not None:
        training.load(state)
    steps = experiment.training.steps
    bar = progress_bar(total=steps, initial=training.step, desc=label, unit="step", disable=not progress, leave=False)
    with bar, closing(training.run()) as run:  # an error's message begins on a line of its own
        for ends in run:
            if ends:
                if training.validates(training.step):
                    if validate is not None:
                        training.curve[-1]["psnr_y"] = validate(training.model)
                    processes.wait()  # for rank 0, which validates
                bar.set_postfix_str(f"L1 {training.curve[-1]['l1']:.4f}", refresh=False)
            bar.update()
            training.tick()
            if checkpoint and training.unsaved >= checkpoint_every and not training.losses.unread:
                training.save(checkpoint, identity)
            if on_step is not None:
                on_step(training.step)
    if checkpoint:
        training.save(checkpoint, identity)
    training.tick()
    peak = max(training.peak, peak_memory_mb(device))
    return Trained(training.model.eval(), training.curve, training.seconds, peak, training.made)


def conditions(e: Experiment, device: torch.device, processes: int = 1) -> dict[str, Any]:
    """What the bits of a training depend on beside its settings, as it stands in its record's provenance.

    The device, the instructions that PyTorch uses of the CPU, its version and threads, the number of processes, and
    what computes L_contr.
    """
    return {
        "device": device.type,
        "device_name": device_name(device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "processes": processes,
        **(computed_by(e.loss, device) if e.loss.contrast_weight else {}),
    }


def progress_bar(**options: Any) -> Any:
    """A bar with the remaining time: a widget in JupyterLab, text elsewhere or where PRFFN_TEXT_PROGRESS is set."""
    if os.environ.get(TEXT_PROGRESS_VARIABLE):
        return tqdm.tqdm(mininterval=1, **options)
    return tqdm.auto.tqdm(**options)
