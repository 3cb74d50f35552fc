"""The ladder of lungs on CT (LCTSC): a classical method, and 3D networks.

The networks are trained alike: the same four CT, changes, loss, steps, patches in a batch and seed, on a grid of 4 mm.
That of nnU-Net's rules has the grid and the patch that the rules choose. All are judged on the validation case, a CT of
another source and hard cases made of the validation case (`build_engines.recipes.data.hard_cts`).
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from build_engines.recipes.ct_lung import NAME, TOML, CtLung
from build_engines.recipes.ct_lung import load as load_ct_lung
from build_engines.recipes.figures.lungs import FIGURES, VALIDATION, by_model, figures, judged
from build_engines.recipes.ladder.lung_baseline import segment
from build_engines.recipes.ladder.measure import measure_package, time_of
from build_engines.recipes.ladder.rows import CARD, Result, Row
from build_engines.recipes.networks.blocks import Network
from build_engines.recipes.networks.fcn3d import Fcn3d
from build_engines.recipes.networks.plan import Fingerprint, Plan, plan
from build_engines.recipes.networks.self_configured import SelfConfigured
from build_engines.recipes.networks.unet import UNet3d
from build_engines.recipes.networks.vnet import VNet
from engines.packages.package import SHIPPED_MODELS, load_package

TABLE, STEPS, LEARNING_RATE, CLASSES = "ct-lungs", 320, 3e-3, 3

TRAINED_ON = "LCTSC, 4 CT (101, 102, 104 and 201)"
JUDGED_ON = "LCTSC-202 (validation), cip64 (other source), hard cases made of LCTSC-202: one CT each, so no interval"
DIFFERS = f"{STEPS} steps of 2 patches from scratch"

UNET = "Hofmanninger et al. 2020, a 2D U-Net: Dice 0.97 ± 0.05 trained on 36 routine CT, 0.98 ± 0.03 on 231"

FINGERPRINT = Fingerprint(
    shapes=((130, 256, 256), (148, 256, 256), (131, 256, 256), (117, 256, 256)),
    spacings=((3.0, 1.953125, 1.953125),) * 4,
)
"""Of the four CT; the rules need no more of them."""

MEMORY_GB, FEATURES = 0.5, 16
"""What the rules are given: a small part of nnU-Net's 8 GB and half of its channels, so that a step takes seconds."""


@dataclass(frozen=True)
class Grid:
    """Where a network works.

    Attributes
    ----------
    spacing
        In mm, along slice, row and column.
    serving, training
        Patches.
    overlap
        Of patches in serving.
    """

    spacing: tuple[float, float, float]
    serving: tuple[int, int, int]
    training: tuple[int, int, int]
    overlap: float = 0.25


WHOLE_CHEST = Grid((4.0, 4.0, 4.0), (112, 128, 128), (48, 64, 64))
"""A chest is one patch of it."""


def self_configured() -> Plan:
    """Apply nnU-Net's rules."""
    return plan(FINGERPRINT, CLASSES, MEMORY_GB, FEATURES)


def grid_of(chosen: Plan) -> Grid:
    """Give the grid of a plan; patches overlap by half, as nnU-Net's do."""
    first, second, third = (round(step, 3) for step in chosen.spacing)
    patch = (chosen.patch[0], chosen.patch[1], chosen.patch[2])
    return Grid((first, second, third), patch, patch, 0.5)


def load(name: str, build: Callable[[], Network], grid: Grid, data: Path) -> CtLung:
    """Read the CT for one row.

    Raises
    ------
    FileNotFoundError
        If ``data`` has no ``ct_lung``.
    """
    recipe = load_ct_lung(data, text_of(name, grid))
    return replace(
        recipe,
        name=name,
        card=CARD.format(name),
        steps=STEPS,
        learning_rate=LEARNING_RATE,
        build=build,
        patch=grid.training,
        measured=FIGURES,
    )


def text_of(name: str, grid: Grid) -> str:
    """Give the ``model.toml`` of a row: that of ``ct-lung`` with another name and grid."""
    wanted, text = tomllib.loads(TOML)["input"], TOML
    for old, new in (
        (f'name = "{NAME}"', f'name = "{name}"'),
        (f"spacing_mm = {wanted['spacing_mm']}", f"spacing_mm = {list(grid.spacing)}"),
        (f"patch = {wanted['patch']}", f"patch = {list(grid.serving)}"),
        (f"further_patches = {wanted['further_patches']}", "further_patches = []"),
        (f"overlap = {wanted['overlap']}", f"overlap = {grid.overlap}"),
    ):
        if text.count(old) != 1:
            raise ValueError(f"the model.toml of {NAME} has {old!r} not once; write it as the ladder expects it")
        text = text.replace(old, new)
    return text


def measure_shipped(data: Path, seed: int) -> Result:
    """Measure ``ct-lung`` as it is shipped; nothing is trained or drawn."""
    return measure_package(
        load_package(SHIPPED_MODELS / NAME), lambda engines: figures(by_model(NAME, engines), judged(data))
    )


def measure_baseline(data: Path, seed: int) -> Result:
    """Measure the method without learning; nothing is drawn."""
    cts = judged(data)
    return Result(
        metrics=figures(segment, cts),
        latency_ms=time_of(lambda: segment(cts[VALIDATION].volume), rounds=1),
        engine="SimpleITK, the whole CT",
    )


NETWORKS: Mapping[str, tuple[str, Callable[[], Network], Grid]] = {
    "ct-lungs-unet": ("U-Net 3D, 2.4 million weights, 4 mm", lambda: UNet3d(CLASSES), WHOLE_CHEST),
    "ct-lungs-vnet": (
        "V-Net, a quarter of the channels, batch normalisation, 4 mm",
        lambda: VNet(CLASSES, width=4),
        WHOLE_CHEST,
    ),
    "ct-lungs-self-configured": (
        f"U-Net 3D configured by nnU-Net's rules for {MEMORY_GB} GB, deep supervision, from {FEATURES} channels",
        lambda: SelfConfigured(CLASSES, self_configured()),
        grid_of(self_configured()),
    ),
    "ct-lungs-fcn": ("FCN 3D on the encoder of the U-Net, 4 mm", lambda: Fcn3d(CLASSES), WHOLE_CHEST),
}
"""Title, network and grid of each row that is trained here."""

ROWS: Mapping[str, Row] = {
    "ct-lungs-threshold": Row(
        table=TABLE,
        title="threshold, airways, morphology (no learning)",
        run=measure_baseline,
        trained_on=f"{TRAINED_ON}: five settings were chosen on them",
        judged_on=JUDGED_ON,
        published="Hu et al. 2001: borders 0.54 mm off (root mean square), 24 CT of 8 healthy people",
        differs="the steps of the paper by other means (distance maps, smoothing in 3D); shallow breath, tumours",
    ),
    "ct-lungs-shipped": Row(
        table=TABLE,
        title="ct-lung as shipped: U-Net 3D, 3 mm",
        run=measure_shipped,
        trained_on=TRAINED_ON,
        judged_on=JUDGED_ON,
        published=UNET,
        differs="a finer grid, larger patches and three times the steps of the other rows",
    ),
} | {
    name: Row(
        table=TABLE,
        title=title,
        load=partial(load, name, build, grid),
        trained_on=TRAINED_ON,
        judged_on=JUDGED_ON,
        published=UNET if name == "ct-lungs-unet" else "",
        differs=DIFFERS,
    )
    for name, (title, build, grid) in NETWORKS.items()
}
