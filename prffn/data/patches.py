"""Random pairs of LR and HR patches, and images as tensors."""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from prffn.data.degradation import ImageArray, mod_crop

AHEAD = 4  # batches drawn ahead for a GPU (our choice)


class PatchSampler:
    """Draw random LR patches and their HR patches, flipped and turned by quarters, all from `generator`.

    hr, lr: images (H, W, 3) uint8; scale: 2, 3 or 4; patch_size: LR pixels. Each image is equally likely.
    Raises ValueError, with the image's entry of `names`, if an image is smaller than a patch.
    """

    def __init__(
        self,
        hr: Sequence[ImageArray],
        lr: Sequence[ImageArray],
        *,
        scale: int,
        patch_size: int,
        batch_size: int,
        generator: torch.Generator,
        names: Sequence[str] = (),
    ) -> None:
        for number, image in enumerate(lr):
            if min(image.shape[:2]) < patch_size:
                size = f"{image.shape[1]} x {image.shape[0]} pixels at LR, smaller than a patch of {patch_size}"
                raise ValueError(f"image {names[number] if names else number} is {size}: leave it out")
        self.pairs = list(zip((mod_crop(image, scale) for image in hr), lr, strict=True))
        self.scale, self.patch_size, self.batch_size = scale, patch_size, batch_size
        self.generator = generator

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return the next batch: LR (N, 3, p, p) and HR (N, 3, p * scale, p * scale), float32 in [0, 1]."""
        lr, hr = self.draw()
        return to_tensor(lr), to_tensor(hr)

    def draw(self) -> tuple[ImageArray, ImageArray]:
        """Return the next batch as images: LR (N, p, p, 3) and HR (N, p * scale, p * scale, 3), uint8."""
        p, s = self.patch_size, self.scale
        lr = np.empty((self.batch_size, p, p, 3), np.uint8)
        hr = np.empty((self.batch_size, p * s, p * s, 3), np.uint8)
        draws = torch.rand(self.batch_size, 4, generator=self.generator, dtype=torch.float64).tolist()
        for n, (which, down, across, turn) in enumerate(draws):
            hr_image, lr_image = self.pairs[int(which * len(self.pairs))]
            top = int(down * (lr_image.shape[0] - p + 1))
            left = int(across * (lr_image.shape[1] - p + 1))
            symmetry = int(turn * 8)  # of the square's eight
            lr[n] = _turned(lr_image[top : top + p, left : left + p], symmetry)
            hr[n] = _turned(hr_image[top * s : (top + p) * s, left * s : (left + p) * s], symmetry)
        return lr, hr


def batches(
    sampler: PatchSampler,
    device: torch.device,
    memory_format: torch.memory_format,
    part: slice,
    ahead: int | None = None,
) -> Generator[tuple[Tensor, Tensor, Tensor]]:
    """Yield batches on a device: LR, the `part` of HR, as in `batch`, and the generator's state after drawing them.

    ahead: how many are drawn beforehand, by a thread, so that the device need not wait for the CPU; they are the same
    batches. None: as many as help there, none on the CPU. Close the iterator to end the thread.
    """

    def draw() -> tuple[Tensor, Tensor, Tensor]:
        lr, hr = map(torch.from_numpy, sampler.draw())
        hr = hr[part]
        if device.type == "cuda":
            lr, hr = lr.pin_memory(), hr.pin_memory()  # copied to the GPU while it works
        return lr, hr, sampler.generator.get_state()

    def on_device(image: Tensor) -> Tensor:
        floats = image.to(device, non_blocking=True).float().div_(255)
        return floats.permute(0, 3, 1, 2).contiguous(memory_format=memory_format)

    if ahead is None:
        ahead = 0 if device.type == "cpu" else AHEAD
    with ThreadPoolExecutor(1) as thread:
        coming: deque[Future[tuple[Tensor, Tensor, Tensor]]] = deque(thread.submit(draw) for _ in range(ahead))
        try:
            while True:
                if ahead:
                    coming.append(thread.submit(draw))
                lr, hr, state = coming.popleft().result() if ahead else draw()
                yield on_device(lr), on_device(hr), state
        finally:
            thread.shutdown(cancel_futures=True)


def _turned(patch: ImageArray, symmetry: int) -> ImageArray:
    if symmetry & 1:
        patch = patch[::-1]
    if symmetry & 2:
        patch = patch[:, ::-1]
    return patch.swapaxes(0, 1) if symmetry & 4 else patch


def to_tensor(images: ImageArray) -> Tensor:
    """Convert (N, H, W, 3) uint8 to (N, 3, H, W) float32 in [0, 1], a copy in the memory format channels_last."""
    return torch.from_numpy(images.astype(np.float32) / np.float32(255)).permute(0, 3, 1, 2)


def to_image(tensor: Tensor) -> ImageArray:
    """Convert (3, H, W) in [0, 1] to (H, W, 3) uint8, clipped and rounded."""
    values = tensor.detach().float().clamp(0, 1).mul(255).round()
    return values.to(torch.uint8).permute(1, 2, 0).cpu().numpy()
