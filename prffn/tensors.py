"""Files of PyTorch's: tensors read, nothing executed, and the checksums compared that PyTorch itself leaves aside."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch


class DamagedTensors(ValueError):
    """A file is not what torch.save wrote, or holds more than tensors; the message says why, and the way out."""


def load_tensors(path: Path) -> Any:
    """What torch.save has written, on the CPU: tensors and the plain containers around them.

    PyTorch writes a CRC-32 beside each tensor and does not compare it: a flipped bit would pass. Here it is compared,
    unless it is 0, which stands for one that was not computed. Files from before PyTorch 1.6 have none.
    Raises DamagedTensors naming the file; FileNotFoundError if there is none, PermissionError where it may not be read.
    """
    try:
        if zipfile.is_zipfile(path):
            _compare_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise  # each names the file
    except pickle.UnpicklingError as error:
        raise DamagedTensors(
            f"{path} holds Python objects other than tensors, perhaps a whole pickled network, or is damaged. Reading "
            "it could run any code; where you trust it, load it yourself and save its state_dict()"
        ) from error
    except Exception as error:
        raise DamagedTensors(f"{path} is damaged, or not a file of PyTorch's ({error!r}); get it again") from error


def _compare_sums(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.CRC:
                with archive.open(member) as content:
                    while content.read(1 << 20):  # the last one compares
                        pass
