"""How many images of an evaluation are unlike those that the model was trained on."""

from collections import Counter

from engines.types import Findings, Image
from evaluation.judge import Models


class Noticing:
    """Runs models as others do (`evaluation.judge.Models`), and counts what lies outside of ``[training.ranges]``."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._images = 0
        self._unlike = 0
        self._outside: Counter[str] = Counter()

    def run(self, name: str, image: Image, /) -> Findings:
        """Run a model over an image."""
        findings = self._models.run(name, image)
        outside = [each.name for each in findings.input_statistics if each.outside]
        self._images += 1
        self._unlike += bool(outside)
        self._outside.update(outside)
        return findings

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader has to know of the images that were run, those that thresholds were chosen on included."""
        if not self._unlike:
            return ()
        [(name, _)] = self._outside.most_common(1)
        return (
            f"{self._unlike} of {self._images} images that were run are unlike those that the model was trained on, "
            f"most often in their {name} (docs/model-package.md, What a model has seen).",
        )
