"""PSNR-Y, SSIM-Y and LPIPS by one protocol, and the evaluation of any network on any image set.

The protocol: SR rounded to uint8, Y of BT.601 YCbCr in the limited range (16 to 235), `scale` pixels shaved off
each border, in float64 on the CPU. Published bicubic figures and RCAN's own outputs check it (tests/).
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from prffn.data.degradation import ImageArray, mod_crop, upscale_bicubic
from prffn.data.images import ImageSet, image_set, lr_images
from prffn.data.patches import to_tensor
from prffn.evaluation.tiling import upscale
from prffn.files import from_extra, load_tensors, weights_root, whole_number
from prffn.models.luma import RGB_TO_YCBCR
from prffn.models.weights import load_network


def luma(image: ImageArray) -> NDArray[np.float64]:
    """Y of (H, W, 3) uint8 RGB: (H, W) float64, 16 to 235, not rounded."""
    return image.astype(np.float64) @ RGB_TO_YCBCR[0].numpy() + 16


def _check_pair(sr: ImageArray, hr: ImageArray) -> None:
    rgb = sr.ndim == 3 and sr.shape[2] == 3
    if not rgb or sr.shape != hr.shape or sr.dtype != np.uint8 or hr.dtype != np.uint8:
        found = f"{sr.shape} {sr.dtype}, {hr.shape} {hr.dtype}"
        raise ValueError(f"expected two RGB images (H, W, 3) of one shape in uint8, got {found}")


def _compared(sr: ImageArray, hr: ImageArray, shave: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    _check_pair(sr, hr)
    if shave < 0 or min(sr.shape[:2]) <= 2 * shave:
        raise ValueError(f"nothing is left of an image of shape {sr.shape} without {shave} pixels at each border")
    inside = slice(shave, -shave or None)
    return luma(sr[inside, inside]), luma(hr[inside, inside])


def psnr_y(sr: ImageArray, hr: ImageArray, shave: int) -> float:
    """PSNR in dB on Y, without `shave` pixels at each border; infinite for equal images. (H, W, 3) uint8 both."""
    a, b = _compared(sr, hr, shave)
    error = np.mean((a - b) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def ssim_y(sr: ImageArray, hr: ImageArray, shave: int) -> float:
    """SSIM on Y (Wang et al., 2004), without `shave` pixels at each border. (H, W, 3) uint8 both.

    Gaussian window of 11 pixels, sigma 1.5, 'valid' places. Raises ValueError for fewer pixels, which hold no window.
    """
    a, b = _compared(sr, hr, shave)
    if min(a.shape) < 11:
        raise ValueError(f"SSIM needs at least 11 x 11 pixels after shaving, got {a.shape[1]} x {a.shape[0]}")
    return float(
        structural_similarity(a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    )


class LpipsUnavailable(RuntimeError):
    """No trained AlexNet was found: LPIPS cannot be measured."""


class UnusableTrunk(ValueError):
    """There is a file that should hold the trained AlexNet, and does not: it is damaged, or of another network."""


@lru_cache(maxsize=1)
def _lpips_network() -> torch.nn.Module:
    """LPIPS v0.1 with AlexNet (our choice: the library's default); heads from the `lpips` package.

    The trunk is alexnet_features.pth in the folder PRFFN_WEIGHTS (torchvision's IMAGENET1K_V1, `features.*`), or
    torchvision downloads it. Raises LpipsUnavailable with the reason where neither is to be had, UnusableTrunk
    for a file that is damaged.
    """
    with from_extra("networks"):
        import lpips

    folder = weights_root()
    trunk = folder / "alexnet_features.pth" if folder else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package uses torchvision's older argument names
        if trunk is not None and trunk.is_file():
            network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
            _load_alexnet(network, trunk)
        else:
            try:
                network = lpips.LPIPS(net="alex", verbose=False)
            except Exception as error:
                missing = "PRFFN_WEIGHTS names no folder with alexnet_features.pth, and torchvision cannot download it"
                raise LpipsUnavailable(f"no trained AlexNet: {missing} ({error})") from error
    return network.eval().requires_grad_(False)


def _load_alexnet(network: torch.nn.Module, path: Path) -> None:
    """Puts torchvision's AlexNet features into the five slices of the LPIPS network, which keep their indices."""
    try:
        state = load_tensors(path)
        state = {name.removeprefix("features."): value for name, value in state.items()}
        for n in range(1, 6):
            part = network.get_submodule(f"net.slice{n}")
            part.load_state_dict({name: state[name] for name in part.state_dict()}, strict=True)
    except Exception as error:
        why = f"is not a state dict of torchvision's AlexNet features ({error})"
        raise UnusableTrunk(f"{path} {why}: put the right one there, or remove it") from error


def lpips_alex(sr: ImageArray, hr: ImageArray) -> float:
    """LPIPS of two RGB images (H, W, 3) uint8, whole; lower is better.

    Raises LpipsUnavailable without a trunk, UnusableTrunk for a damaged one, ValueError for images of two shapes, or
    with a side below 31 pixels, of which AlexNet's poolings leave nothing.
    """
    _check_pair(sr, hr)
    network = _lpips_network()
    if min(sr.shape[:2]) < 31:
        raise ValueError(f"LPIPS needs at least 31 x 31 pixels, got {sr.shape[1]} x {sr.shape[0]}: leave it out")
    a, b = (to_tensor(image[None]) * 2 - 1 for image in (sr, hr))
    with torch.inference_mode():
        return float(network(a, b))


@dataclass(frozen=True)
class Evaluation:
    """Figures of one network on one image set: for each metric a value for each image, in the set's order."""

    image_set: str
    image_names: tuple[str, ...]
    psnr_y: tuple[float, ...]
    ssim_y: tuple[float, ...] | None
    lpips: tuple[float, ...] | None = None
    not_measured: dict[str, str] = field(default_factory=dict)  # for each metric that is missing, why

    def mean_psnr(self) -> float:
        """Mean PSNR-Y in dB over the images."""
        return float(np.mean(self.psnr_y))

    def to_json(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}


def evaluate(
    model: torch.nn.Module | Callable[[ImageArray], ImageArray] | Path | str,
    images: ImageSet | str,
    *,
    scale: int | None = None,
    ssim: bool = True,
    lpips: bool = False,
    device: torch.device | str = "cpu",
    tile: int | None = None,
) -> Evaluation:
    """Figures per image of a network on an image set, by the kit's protocol.

    model: a network (N, 3, h, w) -> (N, 3, h * scale, w * scale) in [0, 1], or a function of one LR image,
        (h, w, 3) uint8, that returns the SR image, uint8, or the path of a checkpoint that `load_network` reads
        without further settings.
    images: a set or its name. scale: that of the network unless it is given. ssim, lpips: measure them too.
    tile: LR pixels of a tile, see `upscale`.
    Raises ValueError where nothing says the scale, or naming the image that cannot be measured: too small for SSIM or
    LPIPS, or upscaled to NaN or infinity, or to another size.
    """
    if isinstance(model, Path | str):
        model = load_network(model, scale=scale)
    scale = getattr(model, "scale", None) if scale is None else scale
    if scale is None:
        raise ValueError("evaluate needs scale= for a function, or a network without an attribute `scale`")
    scale = whole_number("scale", scale)
    hr_set = image_set(images) if isinstance(images, str) else images
    psnr, structural, perceptual = [], [], []
    not_measured = {name: "not asked for" for name, asked in {"ssim_y": ssim, "lpips": lpips}.items() if not asked}
    for name, hr, lr in zip(hr_set.image_names, hr_set.images, lr_images(hr_set, scale), strict=True):
        hr = mod_crop(hr, scale)
        try:
            if isinstance(model, torch.nn.Module):
                sr = upscale(model, lr, scale=scale, device=device, tile=tile)
            else:
                sr = model(lr)
            psnr.append(psnr_y(sr, hr, scale))
            if ssim:
                structural.append(ssim_y(sr, hr, scale))
            if "lpips" not in not_measured:
                perceptual.append(lpips_alex(sr, hr))
        except LpipsUnavailable as reason:
            not_measured["lpips"] = str(reason).split(":")[0]
        except UnusableTrunk:
            raise  # the same for all images
        except ValueError as error:
            raise ValueError(f"image {name} of {hr_set.name}: {error}") from error
        except Exception as error:
            error.add_note(f"image {name} of {hr_set.name}")
            raise
    return Evaluation(
        hr_set.name,
        hr_set.image_names,
        tuple(psnr),
        tuple(structural) if ssim else None,
        None if "lpips" in not_measured else tuple(perceptual),
        not_measured,
    )


def evaluate_bicubic(images: ImageSet | str, *, scale: int, lpips: bool = False) -> Evaluation:
    """The baseline of every table: bicubic upscaling of the same LR images."""
    return evaluate(lambda lr: upscale_bicubic(lr, scale), images, scale=scale, lpips=lpips)
