"""How studies are fetched from an archive, and who counts as their sender: as the settings and an operator say."""

from collections.abc import Sequence

from service.archive.client import ArchiveClient
from service.errors import ConfigurationError
from service.ledger.ledger import Ledger
from service.operate.fetch import MODALITIES, StudyFetch
from service.settings import Settings
from service.spool import Spool

WAYS = ("c-get", "c-move", "wado-rs")


def study_fetch(
    settings: Settings,
    spool: Spool,
    ledger: Ledger,
    archive: str,
    by: str = "",
    sender: str = "",
    modalities: Sequence[str] = MODALITIES,
) -> tuple[ArchiveClient, StudyFetch]:
    """What asks an archive, and what fetches studies from it.

    Parameters
    ----------
    archive
        Its name in the settings.
    by
        One of `WAYS`; default: ``archives.NAME.fetch``, or C-GET where that says no.
    sender
        The calling AE title that an operator has named.

    Raises
    ------
    ConfigurationError
        There is no such archive, sender or way.
    """
    by = way_of(settings, archive, by)
    whose = sender_of(settings, archive, by, sender)
    asked = settings.archives[archive].model_copy(update={"fetch": by})
    client = ArchiveClient(settings.destination(archive), asked, settings.node.ae_title)
    return client, StudyFetch(client, by, spool, ledger, whose, modalities)


def way_of(settings: Settings, archive: str, by: str = "") -> str:
    """How studies are fetched from an archive. Parameters and errors as for `study_fetch`."""
    if archive not in settings.archives:
        known = ", ".join(sorted(settings.archives)) or "none"
        raise ConfigurationError(f"no archive {archive!r} (known: {known}); add a table [archives.{archive}]")
    found = settings.archives[archive]
    by = by or (found.fetch if found.fetch != "no" else "c-get")
    if by not in WAYS:
        raise ConfigurationError(f"{by!r}: no such way to fetch; there are {', '.join(WAYS)}")
    if by == "wado-rs" and not found.dicomweb:
        raise ConfigurationError(f"archives.{archive}.dicomweb is not set; wado-rs needs its base URL")
    return by


def sender_of(settings: Settings, archive: str, by: str, sender: str = "") -> str:
    """Who counts as the sender of what is fetched: whose archive gets the results.

    Parameters
    ----------
    archive
        Its name, which is in the settings.
    by
        How it is fetched: ``c-get``, ``c-move`` or ``wado-rs``.
    sender
        The calling AE title that an operator has named.

    Raises
    ------
    ConfigurationError
        It is none of the settings', or nobody or several could be meant.
    """
    if by == "c-move":
        sender = settings.archives[archive].ae_title  # it calls with its own
    if sender:
        if sender not in settings.senders:
            raise ConfigurationError(f"no sender {sender!r}: its results have nowhere to go; add [senders.{sender}]")
        return sender
    meant = [title for title, each in settings.senders.items() if each.archive == archive]
    if len(meant) != 1:
        many = f"several senders have it ({', '.join(meant)})" if meant else "no sender has it"
        raise ConfigurationError(f"archive {archive}: {many}; name one with --sender, whose archive gets the results")
    return meant[0]
