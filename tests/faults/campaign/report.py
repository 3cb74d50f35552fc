"""The table and the picture of docs/reliability.md, from the lines of campaigns.

::

    python -m tests.faults.campaign.report --picture docs/pictures/reliability.png FILE...

Each FILE is a ``runs.jsonl``. Where a seed of a fault is in several, the last one counts.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from tests.faults.campaign.catalogue import ALL
from tests.faults.campaign.many import Line
from tests.faults.campaign.summary import told

CLEAN, FOUND = "#3a7d5c", "#c8443a"


def lines_in(files: Sequence[Path]) -> list[Line]:
    """The last line of each seed and fault, in the order of the catalogue."""
    last: dict[tuple[str, int], Line] = {}
    for file in files:
        for text in file.read_text().splitlines():
            line = json.loads(text)
            last[line["fault"], line["seed"]] = line
    places = {name: place for place, name in enumerate(ALL)}
    return sorted(last.values(), key=lambda line: (places.get(line["fault"], len(places)), line["seed"]))


def draw(lines: Sequence[Line], target: Path) -> None:
    """A row for each fault, a mark for each run: how long it took until all was at peace again."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(line["fault"] for line in lines))
    figure, axes = plt.subplots(figsize=(9, 0.27 * len(names) + 1.2), layout="constrained")
    for row, name in enumerate(names):
        mine = [line for line in lines if line["fault"] == name]
        for ok, colour, mark in ((True, CLEAN, "o"), (False, FOUND, "X")):
            seconds = [line["seconds"] for line in mine if line["ok"] is ok]
            axes.scatter(seconds, [row] * len(seconds), s=22, c=colour, marker=mark, alpha=0.65, linewidths=0)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
    axes.minorticks_off()
    axes.set_xlabel("seconds of a run: start, harm, and until all work has ended")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    bad = sum(not line["ok"] for line in lines)
    axes.set_title(f"{len(lines)} runs, {bad} with findings", loc="left", fontsize=10)
    figure.savefig(target, dpi=110)


def main() -> None:
    """Print the table, draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign.report", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    lines = lines_in(asked.files)
    print(told(lines))
    if asked.picture:
        draw(lines, asked.picture)


if __name__ == "__main__":
    main()
