"""One run trained by several processes: rank 0 keeps the store and says what is trained, the others take part."""

from prffn.config import Experiment
from prffn.data.images import image_set
from prffn.losses.vgg import BackboneUnavailable, backbone_sha256
from prffn.models.complexity import parameters
from prffn.training.device import threads_for
from prffn.training.loop import build_model, train
from prffn.training.parallel import Processes


def announce(processes: Processes, e: Experiment) -> None:
    """Rank 0 says what it trains next, and the others, which `follow`, call `train` as it does. Nothing for one alone.

    Raises ValueError if one of them has other images or another backbone than rank 0, or none.
    """
    if processes.world_size > 1:
        processes.broadcast((e, _inputs(e)))
        _agree(processes, "")


def follow(processes: Processes) -> None:
    """Takes part in the trainings that rank 0 announces, until it broadcasts None.

    Raises what `announce` and `train` raise, on all processes alike; of a run that diverges, ValueError.
    """
    while said := processes.broadcast(None):
        e, inputs = said
        _agree(processes, _differing(e, inputs))
        with threads_for(parameters(build_model(e))):
            train(e, processes=processes)


def _inputs(e: Experiment) -> dict[str, str]:
    """Checksums of what a training reads, by what it is: equal on all processes, or they would train different runs.

    Raises FileNotFoundError or BackboneUnavailable if it is not there.
    """
    inputs = {f"the images of {e.data.train}": image_set(e.data.train).checksum}
    if e.loss.perceptual_weight or e.loss.csd_weight:
        inputs[f"the weights of {e.loss.backbone}"] = backbone_sha256(e.loss.backbone)
    return inputs


def _differing(e: Experiment, expected: dict[str, str]) -> str:
    """What keeps this process from training the same as rank 0; empty if nothing does."""
    try:
        found = _inputs(e)
    except (OSError, ValueError, BackboneUnavailable) as error:
        return str(error)
    return "; ".join(f"{what} are not those of process 0" for what in expected if found[what] != expected[what])


def _agree(processes: Processes, problem: str) -> None:
    """Raises ValueError on all processes if one of them has a problem: none then waits for it in vain."""
    for rank, found in enumerate(processes.gather(problem)):
        if found:
            raise ValueError(f"process {rank} of {processes.world_size} cannot take part: {found}")
