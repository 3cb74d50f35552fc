"""The losses that recipes choose from, by name. ``[batch, class, ...]`` logits against ``[batch, ...]`` classes."""

from collections.abc import Callable, Mapping

from monai.losses.dice import DiceLoss
from monai.losses.focal_loss import FocalLoss
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]

_dice = DiceLoss(softmax=True, to_onehot_y=True, include_background=False, batch=True, smooth_nr=1.0, smooth_dr=1.0)
_focal = FocalLoss(use_softmax=True, to_onehot_y=True, gamma=2.0)


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice loss over the segments, background left out (Milletari et al., V-Net, 2016)."""
    loss: Tensor = _dice(logits, target[:, None])
    return loss


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """Focal loss with a softmax (Lin et al., Focal Loss for Dense Object Detection, 2017)."""
    loss: Tensor = _focal(logits, target[:, None])
    return loss


def dice_and_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Sum of cross-entropy and soft Dice loss (Isensee et al., nnU-Net, 2021)."""
    return nn.functional.cross_entropy(logits, target) + dice(logits, target)


def smoothed_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy against slightly soft targets (Szegedy et al., 2016): labels mined from text are often wrong."""
    return nn.functional.cross_entropy(logits, target, label_smoothing=0.1)


LOSSES: Mapping[str, Loss] = {
    "cross-entropy": nn.functional.cross_entropy,
    "smoothed-cross-entropy": smoothed_cross_entropy,
    "dice": dice,
    "dice+cross-entropy": dice_and_cross_entropy,
    "focal": focal,
}
