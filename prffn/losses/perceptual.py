"""The other losses of Table 2, in the space of VGG features: L_perc and L_CSD. Only their names are printed.

We have not seen the paper's text on them. They follow their own papers; which variant is our choice:

    L_perc    Johnson et al., ECCV 2016, as for super-resolution: features of relu2_2, squared error / (C H W)
    L_CSD     Wang et al., IJCAI 2021 (and github.com/Booooooooooo/CSD): at five layers, the distance to the positive
              over the distances to K negatives, with the HR image in the place of their teacher's
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prffn.losses.vgg import BackboneName, features

CSD_WEIGHTS = {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1.0}
"""Layers of L_CSD and their weights (published)."""

CSD_NEGATIVES = 10  # K, the number of negatives for batches of 16 (published, in the command of the authors' code)
CSD_EPSILON = 1e-7  # added to the distances to the negatives (published)


def perceptual_loss(sr: Tensor, hr: Tensor, backbone: BackboneName) -> Tensor:
    """L_perc between SR and HR images (Table 2). Returns a scalar; no gradient flows to `hr`.

    sr, hr: (N, 3, H, W), RGB in [0, 1]. Half precisions are computed in float32.
    backbone: our choice; Johnson et al. have vgg16_caffe, ESRGAN vgg19. The features have the unit of its input, 255
        for white or standard deviations, and the loss the square of it: some 40,000 for a bicubic image with
        vgg16_caffe. A weight for one backbone does not fit the other.
    Raises ValueError for shapes that differ or an unknown backbone, BackboneUnavailable without weights.
    """
    _check_shapes(sr, hr)
    with torch.no_grad():
        target = features(hr.to(sr.dtype), backbone, ["relu2_2"])["relu2_2"]
    return F.mse_loss(features(sr, backbone, ["relu2_2"])["relu2_2"], target)


def csd_loss(
    sr: Tensor, hr: Tensor, lr: Tensor, backbone: BackboneName, *, batch_mean: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """L_CSD of a batch of SR images (Table 2). Returns a scalar; no gradient flows to `hr` and `lr`.

        sum over layers l of  w_l mean|phi_l(HR) - phi_l(SR)| / ( sum over k of mean|phi_l(N_k) - phi_l(SR)| + eps )

    Means are over the batch, channels and places, before they are divided (as published).
    sr, hr: (N, 3, H, W), RGB in [0, 1]. lr: (N, 3, h, w), the patches that they come from. Half precisions are
        computed in float32.
    backbone: VGG-19 is published; its normalisation of the input is our choice, the authors' code has none.
    The first CSD_NEGATIVES patches of `lr`, enlarged by the interpolation of the authors' code (bicubic, a = -0.75),
    are the negatives of every image, its own patch among them (as published). A batch of fewer has no more.
    batch_mean: for processes that share a batch, each with a part of it as sr and hr: turns means over a part into
        means over the batch. `lr` is then the whole batch's, so that all processes have the same negatives. The loss
        is the whole batch's on every process; its gradient is the mean of theirs, weighted by their shares.
    Raises ValueError for shapes that do not fit or an unknown backbone, BackboneUnavailable without weights;
    RuntimeError for second derivatives.
    """
    _check_shapes(sr, hr)
    if lr.ndim != 4 or lr.shape[1] != 3 or (len(lr) < len(sr) if batch_mean else len(lr) != len(sr)):
        raise ValueError(f"lr must hold the {len(sr)} patches (N, 3, h, w) of sr, got {tuple(lr.shape)}")
    with torch.no_grad():
        first = lr[:CSD_NEGATIVES].to(torch.promote_types(sr.dtype, torch.float32))
        enlarged = F.interpolate(first, size=sr.shape[2:], mode="bicubic", align_corners=False)
        both = torch.cat((hr.to(first.dtype), enlarged))
        others = features(both, backbone, CSD_WEIGHTS)  # one pass for all
    losses = []
    for layer, x in features(sr, backbone, CSD_WEIGHTS).items():
        positive, negative = others[layer].split((len(sr), len(enlarged)))
        losses.append(CSD_WEIGHTS[layer] * _Ratio.apply(x, positive, negative, batch_mean))
    return torch.stack(losses).sum()


class _Ratio(torch.autograd.Function):
    """Distance to the positive over the distances to all negatives; its gradient is computed along with it.

    x, positive: (N, C, h, w); negatives: (K, C, h, w). Autograd would keep a difference for each negative and read it
    repeatedly: a fifth of the loss's time in all, against a twentieth here.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, positive: Tensor, negatives: Tensor, batch_mean: Callable[[Tensor], Tensor] | None
    ) -> Tensor:
        size = 1 if x.device.type == "cpu" else len(x)  # images at a time: on a CPU one, which the caches hold
        difference = torch.empty_like(x[:size])
        near, away = x.new_zeros(2)
        toward, from_all = torch.empty_like(x), torch.zeros_like(x)
        for image, goal, slope, slopes in zip(*(y.split(size) for y in (x, positive, toward, from_all)), strict=True):
            near += torch.sub(image, goal, out=difference).abs().sum()
            torch.sign(difference, out=slope)
            for negative in negatives:
                away += torch.sub(image, negative, out=difference).abs().sum()
                slopes += difference.sign_()
        near, away = near / x.numel(), away / x.numel()
        if batch_mean is not None:
            near, away = batch_mean(torch.stack((near, away))).to(x.dtype)
        away = away + CSD_EPSILON
        # d (near / away) = (d near - near / away * d away) / away
        ctx.save_for_backward((toward - near / away * from_all) / (away * x.numel()))
        return near / away

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():  # create_graph=True, to which the gradient is a constant
            raise RuntimeError("L_CSD cannot be differentiated twice: leave create_graph=True out")
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None, None


def _check_shapes(sr: Tensor, hr: Tensor) -> None:
    if sr.shape != hr.shape or sr.ndim != 4 or sr.shape[1] != 3:
        raise ValueError(f"sr and hr must both be (N, 3, H, W), got {tuple(sr.shape)} and {tuple(hr.shape)}")
