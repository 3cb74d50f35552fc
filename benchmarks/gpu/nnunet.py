"""A network of the size that nnU-Net plans for a whole-body CT, with random weights, as a module and as a package.

Isensee et al., Nature Methods 2021: six stages of two convolutions (32 to 320 features), instance normalisation, leaky
ReLU, transposed convolutions up, patches of 128³. Random weights cost what trained ones cost.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

FEATURES = (32, 64, 128, 256, 320, 320)
CLASSES = 5

TOML = """\
[identity]
name = "{name}"
version = "0"
uid_root = "99"
licence = "Apache-2.0"
intended_use = "Random weights: to measure time alone"

[input]
tensor = "image"
modality = ["CT"]
spacing_mm = [1.5, 1.5, 1.5]
window = [-1000.0, 1000.0]
patch = [{patch}, {patch}, {patch}]
overlap = 0.5

[segmentation]
tensor = "probabilities"
keep_largest = false

{segments}
[verify]
max_probability_error = 0.05
min_dice = 0.5
"""

SEGMENT = """\
[[segmentation.segments]]
label = "Segment {number}"
category = {{ value = "123037004", scheme = "SCT", meaning = "Anatomical Structure" }}
type = {{ value = "39607008", scheme = "SCT", meaning = "Lung" }}
colour = [{number}, 120, 90]
measurements = []
"""


class NnUnet(nn.Module):
    """``[n, 1, …patch]`` to probabilities ``[n, class, …patch]``; every stage but the first halves the sides."""

    def __init__(self, features: tuple[int, ...] = FEATURES, classes: int = CLASSES) -> None:
        super().__init__()
        inputs = (1, *features[:-1])
        self.down = nn.ModuleList(
            stage(before, width, 1 if index == 0 else 2)
            for index, (before, width) in enumerate(zip(inputs, features, strict=True))
        )
        pairs = list(zip(features[:0:-1], features[-2::-1], strict=True))
        self.enlarge = nn.ModuleList(nn.ConvTranspose3d(deep, width, 2, 2) for deep, width in pairs)
        self.up = nn.ModuleList(stage(2 * width, width, 1) for _, width in pairs)
        self.last = nn.Conv3d(features[0], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        scales = []
        for block in self.down:
            image = block(image)
            scales.append(image)
        for enlarge, block, skip in zip(self.enlarge, self.up, scales[-2::-1], strict=True):
            image = block(torch.cat([enlarge(image), skip], dim=1))
        return torch.softmax(self.last(image), dim=1)


def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(2):
        layers += [
            nn.Conv3d(inputs if index == 0 else outputs, outputs, 3, stride if index == 0 else 1, 1),
            nn.InstanceNorm3d(outputs, affine=True),
            nn.LeakyReLU(0.01),
        ]
    return nn.Sequential(*layers)


def make(tiny: bool) -> tuple[NnUnet, int]:
    """The network, always with the same weights, and the side of its patch."""
    torch.manual_seed(1)
    return (NnUnet((4, 8, 8)), 16) if tiny else (NnUnet(), 128)


def write_package(folder: Path, network: NnUnet, patch: int, device: str) -> None:
    """Write a model package; its golden answer is PyTorch's in FP32, on the device, since a CPU takes minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    image = rng.uniform(0, 1, (1, 1, patch, patch, patch)).astype(np.float16).astype(np.float32)
    tensor = torch.from_numpy(image).to(device)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    network = network.eval().to(device)
    with torch.inference_mode():
        answer = network(tensor).cpu().numpy()
    buffer: Any = io.BytesIO()
    torch.onnx.export(
        network,
        (tensor,),
        buffer,
        input_names=["image"],
        output_names=["probabilities"],
        opset_version=17,
        dynamo=False,
    )
    onnx.save_model(onnx.load_from_string(buffer.getvalue()), folder / "model.onnx")
    np.savez(folder / "golden.npz", image=image, probabilities=answer)
    segments = "\n".join(SEGMENT.format(number=number) for number in range(1, CLASSES))
    (folder / "model.toml").write_text(TOML.format(name=folder.name, patch=patch, segments=segments))
    (folder / "CARD.md").write_text("Random weights.\n")
