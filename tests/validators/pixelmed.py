"""PixelMed's validators of structured reports and of image objects, in one Java machine for all files of a test run.

Debian's wrapper starts a machine for each file, and its rules run on what Java brings for XSLT: several seconds and
gigabytes for a report. Saxon does the same, with the same errors, in a fraction of a second. The exit code of the
original is always 0, so only the text counts.

``python -m tests.validators.pixelmed`` reads paths, a line each, and answers each with a line of JSON: the texts.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.validators import missing, require_tool

ARCHIVES = {
    Path("/usr/share/java/pixelmed.jar"): "apt-get install pixelmed-apps",
    Path("/usr/share/java/Saxon-HE.jar"): "apt-get install libsaxonhe-java",
}
OPTIONS = (
    "-Djavax.xml.transform.TransformerFactory=net.sf.saxon.TransformerFactoryImpl",
    *("-XX:+UseSerialGC", "-Xmx1g", "-Xss8m"),
)
COMPLETE = ("Root Template Validation Complete", "IOD validation complete")
"""Without these lines the validator stopped half way, or knew no rules for the report."""


@dataclass(frozen=True)
class PixelMed:
    """A running validator."""

    process: "subprocess.Popen[str]"

    def report_errors(self, path: Path) -> list[str]:
        """What ``DicomSRValidator`` calls an error in a report, or that it did not get to the end."""
        lines = self._text(path).splitlines()
        unfinished = [f"no line '{line}'" for line in COMPLETE if line not in lines]
        return [line for line in lines if line.startswith("Error")] + unfinished

    def _text(self, path: Path) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(path, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, "the validator ended"
        return str(json.loads(answer))


@contextmanager
def pixelmed() -> Iterator[PixelMed]:
    """Start the validator, and end it afterwards; the test is skipped where it is not installed."""
    require_tool("java")
    for archive, package in ARCHIVES.items():
        if not archive.is_file():
            missing(f"{archive.name} is not installed ({package})")
    command = [sys.executable, "-m", "tests.validators.pixelmed"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield PixelMed(process)
        assert process.stdin is not None
        process.stdin.close()


def _answer_lines() -> None:
    import jpype

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Java prints is no answer
    jpype.startJVM(*OPTIONS, classpath=[*map(str, ARCHIVES)])
    validator = jpype.JClass("com.pixelmed.validate.DicomSRValidator")()
    for line in sys.stdin:
        try:
            text = str(validator.validate(line.rstrip("\n")))
        except jpype.JException as error:
            text = f"Error: {error}"
        print(json.dumps(text), file=answers, flush=True)


if __name__ == "__main__":
    _answer_lines()
