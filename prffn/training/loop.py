"""One training: random patches, Adam, a checkpoint from which a killed run goes on bit for bit (on the CPU)."""

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tqdm.auto
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from prffn.config import Experiment, TrainingConfig
from prffn.data.images import image_set, lr_images
from prffn.data.patches import PatchSampler
from prffn.files import TEXT_PROGRESS_VARIABLE, weights_sha256
from prffn.losses import computed_by
from prffn.models import PRFFN, reduced
from prffn.models.interpolating import start_as_interpolation
from prffn.training.checkpoint import load_checkpoint, save_checkpoint
from prffn.training.device import device_name, peak_memory_mb, reset_peak_memory
from prffn.training.objective import gradient_norms, loss_terms, weighted
from prffn.training.parallel import Processes

CURVE_POINTS = 50
"""How many points the recorded curve has; each is a mean over the steps since the one before."""

NOT_RECORDED = "not recorded"

VALIDATE_EVERY = 5
"""A run is validated at every fifth point of the curve, and at its end."""


class NonFiniteLoss(FloatingPointError):
    """A loss term is not a finite number: training has stopped before the step was taken."""


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
        model = PRFFN(
            scale,
            variant=m.variant,
            channels=m.channels,
            groups=m.groups,
            blocks=m.blocks,
            reduction=m.reduction,
            dilation_rates=m.dilation_rates,
            generator=generator,
        )
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


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Learning rate of step 0, 1, ...: halved every `halve_every` steps (our choice: RCAN's), or, for short runs
    (our choice), one cycle: a linear warm-up over a tenth of the steps, then half a cosine down to zero."""
    if config.schedule == "halving":
        return config.learning_rate * 0.5 ** (step // config.halve_every)
    warm_up = max(1, config.steps // 10)
    if step < warm_up:
        return config.learning_rate * (step + 1) / warm_up
    done = (step - warm_up) / max(1, config.steps - warm_up)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


class Clipping:
    """Clips the gradient to a quantile of the norms of all steps so far, this one's among them.

    The rule of AutoClip (Seetharaman et al., MLSP 2020): it needs no threshold in the units of a loss, so that all
    losses are treated alike.
    """

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self.quantile = config.clip_quantile
        self.norms = torch.empty(config.steps, device=device)

    def clip(self, parameters: Iterable[nn.Parameter], step: int) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.stack([g.norm() for g in gradients]).norm()
        self.norms[step] = norm
        limit = torch.quantile(self.norms[: step + 1], self.quantile)
        torch._foreach_mul_(
            gradients, (limit / norm.clamp(min=1e-30)).clamp(max=1.0)
        )  # no look at the norm: a GPU would wait


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
    e, config = experiment, experiment.training
    processes = processes or Processes(device=torch.device(device))
    device = processes.device
    if others := processes.rank > 0:
        checkpoint, validate, progress = None, None, False
    part = processes.part(e.data.batch_size)
    share = (part.stop - part.start) / e.data.batch_size
    reset_peak_memory(device)

    model = build_model(e)
    if bool(e.start) != (start is not None) and not others:
        raise ValueError("`start` must hold the weights of experiment.start, and be None where there is none")
    if start is not None and not others:
        take_over(model, start)
    hr = image_set(e.data.train)
    sampler = PatchSampler(
        hr.images,
        lr_images(hr, e.data.scale),
        scale=e.data.scale,
        patch_size=e.data.patch_size,
        batch_size=e.data.batch_size,
        generator=torch.Generator().manual_seed(2**32 + e.seed),  # apart from the stream of the weights
        names=hr.image_names,
    )
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    model = model.to(device=device, memory_format=memory_format).train()  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=config.betas)

    clipped = Clipping(config, device) if config.clip_quantile < 1 else None
    step, seconds, peak, curve, sums = 0, 0.0, 0.0, [], dict[str, float]()
    made: list[dict[str, Any]] = []
    identity = repr(e.canonical()) + (f" from {weights_sha256(start)}" if start else "")
    state = load_checkpoint(checkpoint, identity) if checkpoint else None
    state = processes.broadcast(state)  # the others may be on machines that do not see the file
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        sampler.generator.set_state(state["sampler"])
        step, seconds, peak, curve, sums = (state[k] for k in ("step", "seconds", "peak", "curve", "sums"))
        if clipped is not None:
            clipped.norms[:step] = state["norms"]
        made = state.get("made", [{"step": 0, "device": NOT_RECORDED}])  # older checkpoints do not say
    parallel = model if processes.world_size == 1 else in_parallel(model)
    batch_mean = partial(processes.mean, share=share) if processes.world_size > 1 else None
    last_tick, unsaved = time.perf_counter(), 0.0

    def tick() -> None:
        """Counts the seconds since the last call; none where the clock was set back meanwhile."""
        nonlocal last_tick, seconds, unsaved
        now = time.perf_counter()
        seconds, unsaved, last_tick = seconds + max(0.0, now - last_tick), unsaved + max(0.0, now - last_tick), now

    def save() -> None:
        assert checkpoint is not None
        save_checkpoint(checkpoint, {
            "identity": identity, "step": step, "steps": config.steps, "seconds": seconds,
            "model": model.state_dict(), "optimizer": optimizer.state_dict(),
            "sampler": sampler.generator.get_state(), "curve": curve, "sums": sums,
            "peak": max(peak, peak_memory_mb(device)), "made": made,
            **({"norms": clipped.norms[:step].clone()} if clipped is not None else {}),
        })  # fmt: skip

    here = conditions(e, device, processes.world_size)
    if step < config.steps and (not made or {**made[-1], "step": 0} != {"step": 0, **here}):
        made = [*made, {"step": step, **here}]
    interval = max(1, config.steps // CURVE_POINTS)
    bar = progress_bar(total=config.steps, initial=step, desc=label, unit="step", disable=not progress, leave=False)
    with bar:  # an error's message begins on a line of its own
        while step < config.steps:
            lr, hr_batch = sampler.batch()
            lr, target = (batch.to(device, memory_format=memory_format) for batch in (lr, hr_batch[part]))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.bfloat16):
                sr = parallel(lr[part])
            sr = sr.float()
            terms = loss_terms(sr, target, lr, e.loss, batch_mean)
            means = processes.mean(torch.stack(list(terms.values())).detach(), share)
            values = dict(zip(terms, means.tolist(), strict=True))
            check_finite(values, step)
            parts = weighted(terms, e.loss, step / config.steps)
            due = (step + 1) % (VALIDATE_EVERY * interval) == 0 or step + 1 == config.steps
            squares = processes.mean(share * gradient_norms(parts, sr), share) if due and len(parts) > 1 else None
            optimizer.zero_grad(set_to_none=True)
            (sum(parts.values()) * (share * processes.world_size)).backward()
            if clipped is not None:
                clipped.clip(model.parameters(), step)
            optimizer.step()

            step += 1
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
            if step % interval == 0 or step == config.steps:
                count = step - (int(curve[-1]["step"]) if curve else 0)
                curve.append({"step": step, **{name: total / count for name, total in sums.items()}})
                sums = {}
                if squares is not None:
                    norms = zip(parts, squares.sqrt().tolist(), strict=True)
                    curve[-1] |= {f"gradient_{name}": norm for name, norm in norms}
                if validate is not None and due:
                    curve[-1]["psnr_y"] = validate(model)
                if due:
                    processes.wait()  # for rank 0, which validates
                bar.set_postfix_str(f"L1 {curve[-1]['l1']:.4f}", refresh=False)
            bar.update()
            tick()
            if checkpoint and unsaved >= checkpoint_every:
                save()
                unsaved = 0.0
            if on_step is not None:
                on_step(step)
    if checkpoint:
        save()
    tick()
    return Trained(model.eval(), curve, seconds, max(peak, peak_memory_mb(device)), made)


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


def check_finite(values: dict[str, float], step: int) -> None:
    """Raises NonFiniteLoss if a term of this step is infinite or not a number."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise NonFiniteLoss(
                f"loss term {name!r} is {value} at step {step}; try a smaller training.learning_rate, or a larger "
                "loss.temperature or loss.epsilon"
            )


def in_parallel(model: nn.Module) -> nn.Module:
    """The network for several processes: all get the weights of rank 0 here, and the mean of their gradients later."""
    constants = [name for name, _ in model.named_buffers()]  # such as the mean RGB: nothing to be sent at every step
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, constants)
    return DistributedDataParallel(model)
