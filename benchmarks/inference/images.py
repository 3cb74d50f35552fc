"""What the models are shown: the NLST chest where it is there, else the demo's, and the demo's X-ray."""

import tempfile
from pathlib import Path
from typing import Any

from engines.types import Image
from service.demo.phantom import write_chest_ct, write_chest_xray
from service.series.assembly import assemble

NLST = "dicom/ct_nlst101287_toshiba_jpegls_plus_sybil_sr"


def images(data: Path) -> dict[str, tuple[str, Image]]:
    """Give a CT and an X-ray, each with the words for it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        series = data / NLST
        words = "NLST chest" if series.is_dir() else "phantom"
        ct = first(next(series.glob("CT_*")) if series.is_dir() else write_chest_ct(folder / "ct"))
        xray = first(write_chest_xray(folder / "xray"))
    return {"ct": (f"{words}, {' × '.join(map(str, ct.array.shape))}", ct), "xray": ("phantom X-ray, 1024²", xray)}


def first(folder: Path) -> Any:
    """Read the first image of a folder of DICOM files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return assemble(files, 2).items[0].image
