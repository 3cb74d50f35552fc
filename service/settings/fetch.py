"""``[fetch.NAME]``: what is fetched from an archive by a rule."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from service.settings.section import AETitle, DaySpan, Section

ModalityCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,16}$")]


class FetchSettings(Section):
    """``[fetch.NAME]``: studies that are fetched from an archive, as if they had been sent (`wetread fetch`)."""

    archive: str
    studies: Literal["found", "received"] = "found"
    """found: those that the archive lists and that match. received: earlier ones of the patients of studies that the
    sender has sent, as ``priors`` says."""
    sender: AETitle | None = None
    """Whose archive gets the results; default: the one sender that has this archive."""
    by: Literal["c-get", "wado-rs", "c-move"] | None = None
    """How; default: ``archives.NAME.fetch``, or c-get where that is "no"."""
    modalities: Annotated[tuple[ModalityCode, ...], Field(min_length=1)] = ("CT", "CR", "DX")
    """Of the series that are fetched, and of the studies that are found."""
    description: str = ""
    """What StudyDescription must be; ``*`` and ``?`` stand for anything. Empty for any."""
    days: Annotated[int, Field(ge=0, le=3650)] = 1
    """Studies of today and so many days before."""
    priors: Annotated[int, Field(ge=0, le=100)] = 0
    """So many earlier studies of the patient, too, of each."""
    every_minutes: Annotated[float, Field(ge=0.05)] = 60.0
    """How often the archive is asked, from the end of one time to the beginning of the next."""
    windows: tuple[DaySpan, ...] = ()
    """When, in local time: "19:00-06:00"; empty for always. A study that is being fetched comes to its end."""

    @model_validator(mode="after")
    def _priors_of_what_was_received(self) -> Self:
        if self.studies == "received" and not self.priors:
            raise ValueError('studies = "received" fetches earlier studies; say in priors how many')
        if self.studies == "received" and self.by == "c-move":
            raise ValueError('by = "c-move" cannot be told from what was sent, so that the priors of priors would come')
        return self
