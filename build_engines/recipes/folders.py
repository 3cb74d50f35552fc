"""Where the recipes read from and write to: a checkout, with the data beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

DATA = ROOT.parent / "shared" / "data"
"""The training data, where no other folder is named."""

KEPT = ROOT / ".train"
"""What trainings keep, and git does not: weights, interrupted trainings, what takes long to compute."""

LADDER = KEPT / "ladder"
"""Packages of the ladder's rows; they are measured and not shipped."""

RESULTS = ROOT / "docs" / "ladder"
"""What was measured of each row."""

PICTURES = ROOT / "docs" / "pictures"
