"""OHIF in a headless browser, driven as a person drives it, and asked what it shows."""

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.validators import require_tool
from tests.waiting import eventually

PATIENCE = 45.0
"""Seconds to wait for what a viewer needs a few for on two busy cores."""
WINDOW = (1280, 800)
LARGEST_PICTURE = 380_000
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run", "--disable-quic", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", f"--window-size={WINDOW[0]},{WINDOW[1]}",
    # WebGL without a graphics card
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
    # nothing but this machine can be reached
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)  # fmt: skip

SEGMENTATIONS = """
const {metaData, cache} = window.cornerstone;
return window.cornerstoneTools.segmentation.state.getSegmentations().map(({label, segments, representationData}) => {
  const voxels = {};
  for (const id of representationData.Labelmap?.imageIds ?? []) {
    const image = cache.getImage(id), counts = new Int32Array(256);
    for (const value of image.voxelManager.getScalarData()) counts[value] += 1;
    const source = metaData.get('instance', image.referencedImageId).SOPInstanceUID;
    counts.forEach((count, value) => { if (value && count) (voxels[value] ??= {})[source] = count; });
  }
  return {label, voxels, segments: Object.fromEntries(Object.entries(segments).map(([n, one]) => [n, one.label]))};
});
"""
MEASUREMENTS = """
return window.services.displaySetService.getActiveDisplaySets()
  .filter(({SeriesDescription, measurements}) => SeriesDescription === arguments[0] && measurements)
  .flatMap(({measurements}) => measurements)
  .map(({TrackingIdentifier, loaded, labels}) => ({
    name: TrackingIdentifier, drawn: !!loaded, values: (labels ?? []).map(({label, value}) => label + ' ' + value),
  }));
"""
VIEWPORT = "const [viewport] = window.cornerstone.getRenderingEngines().flatMap(engine => engine.getViewports());"
SCROLL = f"""{VIEWPORT}
const {{metaData, utilities}} = window.cornerstone;
const imageIndex = viewport.getImageIds().findIndex(id => metaData.get('instance', id).SOPInstanceUID === arguments[0]);
return utilities.jumpToSlice(viewport.element, {{imageIndex}});
"""
REDRAW = f"{VIEWPORT} viewport.render();"
"""As a person does by moving the mouse: what is added to a viewport after its last drawing is not seen before."""
DRAWN_TEXT = "return [...document.querySelectorAll('svg text, svg tspan')].map(e => e.textContent).join('\\n')"


@dataclass(frozen=True)
class ShownSegmentation:
    """A segmentation as OHIF holds it: how many voxels each segment (by its label) has on each source image."""

    label: str
    voxels: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class ShownMeasurement:
    """A group of a report as OHIF lists it."""

    name: str
    drawn: bool
    values: tuple[str, ...]


class Viewer:
    """One version of OHIF in a browser of its own (`open_viewer`).

    Parameters
    ----------
    version
        Of OHIF.
    url
        Where it is served.
    """

    def __init__(self, version: str, url: str, browser: Chrome) -> None:
        self.version, self._url, self._browser = version, url, browser

    def open(self, study_uid: str, *series_uids: str, share: float = 0.2) -> None:
        """Open these series of a study, and wait until the first fills this share of the viewport."""
        self._browser.get("about:blank")
        self.console()
        query = f"StudyInstanceUIDs={study_uid}&SeriesInstanceUIDs={','.join(series_uids)}"
        self._browser.get(f"{self._url}/viewer?{query}")
        eventually(lambda: len(self._thumbnails()) >= len(series_uids), "OHIF lists the series", PATIENCE)
        eventually(lambda: self.lit() > share, "OHIF shows the first series", PATIENCE)

    def listed(self, description: str) -> int:
        """How many entries the list of series has for a series of this description."""
        return len(self._entries(description))

    def show(self, description: str, entry: int = 0) -> None:
        """Double-click an entry of the list of series."""
        ActionChains(self._browser).double_click(self._entries(description)[entry]).perform()

    def stand_still(self) -> None:
        """Wait until the viewports have not changed for a second."""
        before = b""

        def unchanged() -> bool:
            nonlocal before
            time.sleep(1)
            now = self._viewports()
            same, before = now == before, now
            return same

        eventually(unchanged, "the viewports stand still", PATIENCE)

    def lit(self) -> float:
        """How much of the viewports is not black, 0 to 1; labels alone are some 0.01."""
        if not (png := self._viewports()):
            return 0.0
        return float((np.asarray(Image.open(io.BytesIO(png)).convert("L")) > 40).mean())

    def segmentations(self) -> list[ShownSegmentation]:
        """What it holds as segmentations."""
        return [
            ShownSegmentation(
                held["label"], {label: held["voxels"].get(number, {}) for number, label in held["segments"].items()}
            )
            for held in self._run(SEGMENTATIONS)
        ]

    def measurements(self, description: str) -> list[ShownMeasurement]:
        """The groups of the report of this series description."""
        return [
            ShownMeasurement(held["name"], held["drawn"], tuple(held["values"]))
            for held in self._run(MEASUREMENTS, description)
        ]

    def text(self) -> str:
        """All that is to be read on the page, what is drawn into the viewports included."""
        self._run(REDRAW)
        return self._browser.find_element(By.TAG_NAME, "body").text + "\n" + str(self._run(DRAWN_TEXT))

    def images(self) -> int:
        """How many images the viewport scrolls through."""
        return int(self._run(f"{VIEWPORT} return viewport.getImageIds().length"))

    def scroll_to(self, sop_instance_uid: str) -> None:
        """Scroll the viewport to the slice of a source image."""
        self._run(SCROLL, sop_instance_uid)

    def console(self) -> list[str]:
        """The severe lines of its console since the last time."""
        return [line["message"] for line in self._browser.get_log("browser") if line["level"] == "SEVERE"]

    def picture(self, target: Path) -> None:
        """Write the page as a PNG, with fewer colours where it would be large."""
        page = Image.open(io.BytesIO(self._browser.get_screenshot_as_png())).convert("RGB")
        page.save(target, optimize=True)
        if target.stat().st_size > LARGEST_PICTURE:
            page.quantize(256, Image.Quantize.MAXCOVERAGE).save(target, optimize=True)

    def _run(self, script: str, *arguments: object) -> Any:
        return self._browser.execute_script(script, *arguments)

    def _viewports(self) -> bytes:
        shown = self._browser.find_elements(By.CSS_SELECTOR, '[data-cy="viewport-grid"]')
        return bytes(shown[0].screenshot_as_png) if shown else b""

    def _thumbnails(self) -> list[WebElement]:
        return self._browser.find_elements(By.CSS_SELECTOR, '[data-cy^="study-browser-thumbnail"]')

    def _entries(self, description: str) -> list[WebElement]:
        return [entry for entry in self._thumbnails() if description in entry.text.splitlines()]


@contextmanager
def open_viewer(version: str, url: str) -> Iterator[Viewer]:
    """Start a browser for a version of OHIF that is served at ``url``."""
    options = ChromeOptions()
    options.binary_location = require_tool("chromium")
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options=options, service=Service(require_tool("chromedriver")))
    try:
        yield Viewer(version, url, browser)
    finally:
        browser.quit()
