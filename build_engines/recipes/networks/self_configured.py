"""The U-Net that a plan describes (Isensee et al., nnU-Net, Nature Methods 2021).

It is ``PlainConvUNet`` of ``dynamic-network-architectures``, which is nnU-Net's own.
"""

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

from build_engines.recipes.losses import Loss
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.networks.plan import Plan


class SelfConfigured(Network):
    """The network of a plan.

    Parameters
    ----------
    classes
        Background among them.
    chosen
        See `build_engines.recipes.networks.plan.plan`.
    deep_supervision
        Whether the loss is taken at every resolution but the coarsest, see `deeply_supervised`.
    """

    def __init__(self, classes: int, chosen: Plan, deep_supervision: bool = True) -> None:
        super().__init__()
        dimension, stages = len(chosen.patch), len(chosen.strides)
        self.deep_supervision = deep_supervision
        self.layers = PlainConvUNet(
            input_channels=1,
            n_stages=stages,
            features_per_stage=list(chosen.features),
            conv_op=nn.Conv2d if dimension == 2 else nn.Conv3d,
            kernel_sizes=[list(kernel) for kernel in chosen.kernels],
            strides=[list(stride) for stride in chosen.strides],
            n_conv_per_stage=2,
            num_classes=classes,
            n_conv_per_stage_decoder=2,
            conv_bias=True,
            norm_op=nn.InstanceNorm2d if dimension == 2 else nn.InstanceNorm3d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            deep_supervision=deep_supervision,
        )
        self.layers.apply(InitWeights_He(1e-2))

    def logits(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Map ``[batch, 1, (slice,) row, column]`` to ``[batch, class, ...]``.

        In training with deep supervision there is one such tensor a resolution, the finest first.
        """
        deep = self.deep_supervision and self.training
        self.layers.decoder.deep_supervision = deep
        logits = self.layers(image)
        return tuple(logits) if deep else logits


def deeply_supervised(loss: Loss, outputs: Tensor | tuple[Tensor, ...], target: Tensor) -> Tensor:
    """Weigh the losses of all resolutions: half as much with each halving, the coarsest left out.

    Parameters
    ----------
    loss
        Of one resolution.
    outputs
        Logits, finest first; one tensor where there is no deep supervision.
    target
        ``[batch, (slice,) row, column]``, classes at the finest resolution.
    """
    if not isinstance(outputs, tuple):
        return loss(outputs, target)
    judged = outputs[:-1] if len(outputs) > 1 else outputs
    weights = 0.5 ** torch.arange(len(judged))
    labels = [
        nn.functional.interpolate(target[:, None].float(), size=logits.shape[2:], mode="nearest")[:, 0].long()
        for logits in judged
    ]
    losses = torch.stack([loss(logits, truth) for logits, truth in zip(judged, labels, strict=True)])
    return (weights * losses).sum() / weights.sum()
