"""What a precision costs in accuracy: the figures of the models' cards, with another engine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from engines.inference.analyse import analyse
from engines.packages.package import ModelPackage
from engines.runtimes.base import Engine
from engines.types import Findings, Image, LabelMap


@dataclass
class OneEngine:
    """Runs one model on one engine. What it is cropped to comes from ``reference``, once for each image.

    So that a change of the figures is the change of this model's precision alone.
    """

    package: ModelPackage
    engine: Engine
    reference: Mapping[str, tuple[ModelPackage, Engine]]
    regions: dict[int, LabelMap | None]
    seen: Callable[[], object] = field(default=lambda: None)

    def run(self, name: str, image: Image) -> Findings:
        assert name == self.package.name
        self.seen()
        return analyse(self.package, self.engine, image, clock=lambda: datetime.now(UTC), region=self._region(image))

    def _region(self, image: Image) -> LabelMap | None:
        wanted = self.package.input
        if wanted.crop_to is None:
            return None
        # By the array, which lives as long as the images of an evaluation; the image around it does not.
        key = id(image.array)
        if key not in self.regions:
            package, engine = self.reference[wanted.crop_to]
            found = analyse(package, engine, image, clock=lambda: datetime.now(UTC))
            self.regions[key] = found.label_map
        return self.regions[key]
