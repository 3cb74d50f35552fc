"""The ladder of classes of chest X-rays, and the ablation: one recipe, of which one switch is changed at a time.

All rows are trained alike: the same X-rays, steps, batches and seed, on 128 × 128 pixels. A row that ends in
``-held-out`` is the same training without the sources Hannover and Montgomery, and judged on them alone.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from build_engines.recipes.augmentation.xrays import Changes
from build_engines.recipes.cxr_pneumonia import NAME, CxrPneumonia, load, load_held_out
from build_engines.recipes.ladder.measure import measure_package
from build_engines.recipes.ladder.rows import CARD, Result, Row
from build_engines.recipes.packaging.texts import package_texts
from engines.packages.package import SHIPPED_MODELS, load_package

SIZE, STEPS = 128, 500

TRAINED_ON = "1543 X-rays of five sources (column split)"
JUDGED_ON = "273 X-rays of the test rows"
HELD_OUT_TRAINED_ON = "1290 X-rays of NIH, Shenzhen and COVID-CXNet (column split_by_source)"
HELD_OUT_JUDGED_ON = "323 X-rays of Hannover and Montgomery, sources never trained on"
DIFFERS = "other X-rays, half of the channels, 128 × 128, 500 steps"


@dataclass(frozen=True)
class System:
    """One way to train, beside the plain one.

    Attributes
    ----------
    table, title, published
        Of its row.
    switches
        Fields of `CxrPneumonia` that differ.
    held_out
        Whether it is trained a second time, for the figure on held-out sources.
    """

    title: str
    switches: Mapping[str, Any] = field(default_factory=dict)
    held_out: bool = False
    table: str = "ablation"
    published: str = ""


SYSTEMS: Mapping[str, System] = {
    "classes-mobilenetv2-sa": System(
        "MobileNetV2 + SA, cropped to the lungs",
        held_out=True,
        table="xray-classes",
        published="sensitivity 0.973, specificity 0.990, PPV 0.978, NPV 0.990, AUC 0.996, F1 0.977, "
        "with lung segmentation first",
    ),
    "classes-whole-image": System(
        "MobileNetV2 + SA, whole image",
        {"view": "whole"},
        held_out=True,
        table="xray-classes",
        published="F1 0.964 without lung segmentation",
    ),
    "classes-outside": System(
        "MobileNetV2 + SA, only what is outside the lungs; geometry alone is changed",
        # Trained to find what there is: what the other rows change to hide it is left as it is.
        {"view": "outside", "changes": Changes(tone=False, surroundings=False)},
        table="xray-classes",
    ),
    "classes-inside": System(
        "MobileNetV2 + SA, only what is inside the lungs; no changed surroundings",
        {"view": "inside", "changes": Changes(surroundings=False)},
        table="xray-classes",
    ),
    "classes-mobilenetv2": System("MobileNetV2, cropped to the lungs", {"attention": False}, table="xray-classes"),
    "ablation-no-augmentation": System(
        "no augmentation", {"changes": Changes(geometry=False, tone=False, surroundings=False)}
    ),
    "ablation-multi-task": System("mask and class from one encoder", {"outlines": True}),
    "ablation-random-encoder": System("encoder not from cxr-lung", {"transfer": False}),
    "ablation-geometry-only": System(
        "augmentation: geometry only", {"changes": Changes(tone=False, surroundings=False)}
    ),
    "ablation-tone-only": System("augmentation: tone only", {"changes": Changes(geometry=False, surroundings=False)}),
    "ablation-surroundings-kept": System(
        "no masking of surroundings and markers", {"changes": Changes(surroundings=False)}
    ),
    "ablation-not-balanced": System("sources not balanced", {"balanced": False}),
    "ablation-cross-entropy": System("cross-entropy, not smoothed", {"loss_name": "cross-entropy"}),
    "ablation-focal": System("focal loss", {"loss_name": "focal"}),
    "ablation-no-dropout": System("no dropout", {"dropout": 0.0}),
    "ablation-no-weight-decay": System("no weight decay", {"weight_decay": 0.0}),
}


def text_of(name: str, recipe: CxrPneumonia, size: int = SIZE) -> str:
    """Write the ``model.toml`` of a row: the shipped model's, but for what differs, and without mirror images."""
    text = re.sub(r'(?m)^name = ".*"', f'name = "{name}"', recipe.toml, count=1)
    text = re.sub(r"(?m)^size = .*", f"size = [{size}, {size}]", text)
    text = re.sub(r"(?ms)^\[training.ranges\].*?(?=^\[)", "", text)
    text = re.sub(r"(?m)^(\[network\]|files = .*|flips = .*)\n", "", text)
    # No row is looked at for its maps; where a network never saw such an image as the golden input, they are noise.
    text = re.sub(r"(?m)^(activation|max_activation_error) = .*\n", "", text)
    if recipe.view != "lung crop":
        text = re.sub(r"(?m)^crop_(to|margin) = .*\n", "", text)
    if recipe.outlines:
        lungs = re.search(r"(?ms)^\[segmentation\].*?(?=^\[(?!\[?segmentation))", package_texts("cxr-lung")[0])
        assert lungs is not None
        text = text.replace("[classification]", lungs[0].replace('"probabilities"', '"mask"') + "[classification]")
        text += "min_dice = 0.99\n"
    tomllib.loads(text)
    return text


def recipe_of(name: str, system: System, read: Callable[[Path], CxrPneumonia], data: Path) -> CxrPneumonia:
    """Read the data and set the switches of a row."""
    recipe = replace(read(data), name=name, card=CARD.format(name), steps=STEPS, **system.switches)
    return replace(recipe, toml=text_of(name, recipe))


def rows_of(name: str, system: System) -> dict[str, Row]:
    """Give the row of a system, and its row on held-out sources."""
    row = Row(
        table=system.table,
        title=system.title,
        load=partial(recipe_of, name, system, load),
        trained_on=TRAINED_ON,
        judged_on=JUDGED_ON,
        published=system.published,
        differs=DIFFERS if system.published else "",
    )
    if not system.held_out:
        return {name: row}
    held_out = replace(
        row,
        title=f"{system.title}; sources held out",
        load=partial(recipe_of, f"{name}-held-out", system, load_held_out),
        trained_on=HELD_OUT_TRAINED_ON,
        judged_on=HELD_OUT_JUDGED_ON,
        published="",
        differs="",
    )
    return {name: row, f"{name}-held-out": held_out}


HELD_OUT_NAME = f"{NAME}-held-out"


ONE_NAME = "classes-one-network"


def as_shipped(name: str, read: Callable[[Path], CxrPneumonia], data: Path) -> CxrPneumonia:
    """Train one network as those of the shipped ensemble were; it is not calibrated."""
    recipe = replace(read(data), name=name, card=CARD.format(name))
    return replace(recipe, toml=text_of(name, recipe, recipe.size[0]))


def measure_shipped(data: Path, seed: int) -> Result:
    """Measure ``cxr-pneumonia`` as it is shipped; nothing is trained, and nothing drawn but the intervals."""
    return measure_package(load_package(SHIPPED_MODELS / NAME), load(data).measure)


ROWS: Mapping[str, Row] = {
    "classes-shipped": Row(
        table="xray-classes",
        title="cxr-pneumonia as shipped: three networks, calibrated, mean of an image and its mirror image",
        run=measure_shipped,
        trained_on=TRAINED_ON,
        judged_on=JUDGED_ON,
        differs="more pixels and more steps than the other rows",
    ),
    ONE_NAME: Row(
        table="xray-classes",
        title="the first of its networks alone",
        load=partial(as_shipped, ONE_NAME, load),
        trained_on=TRAINED_ON,
        judged_on=JUDGED_ON,
        differs="more pixels and more steps than the other rows",
    ),
    HELD_OUT_NAME: Row(
        table="xray-classes",
        title="one network of cxr-pneumonia, trained as it; sources held out",
        load=partial(as_shipped, HELD_OUT_NAME, load_held_out),
        trained_on=HELD_OUT_TRAINED_ON,
        judged_on=HELD_OUT_JUDGED_ON,
    ),
    **{name: row for system, made in SYSTEMS.items() for name, row in rows_of(system, made).items()},
}
