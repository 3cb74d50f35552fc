"""Structured logs: one event per fact, named ``stage.verb``, without patients' data.

A series is named by its key (a hash of its UIDs), never by its UIDs or anything else from a header.
"""

import logging
import sys
import warnings

import structlog

from service.settings import LogSettings


def configure(settings: LogSettings) -> None:
    """Send events to standard error, as JSON lines or for a person's eyes."""
    renderer: structlog.typing.Processor
    if settings.format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def silence_libraries() -> None:
    """Keep libraries that name UIDs and header values in their logs and warnings from telling them."""
    for library in ("pynetdicom", "pydicom", "httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module=library)
