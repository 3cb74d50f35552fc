"""The node: from the wire to the archive, one room per stage."""

from importlib.metadata import version

__version__ = version("wetread")
