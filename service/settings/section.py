"""What the tables of the settings have in common, and the kinds of values in them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Section(BaseModel):
    """A table: no key that it does not know, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


AETitle = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$")
]
"""Application entity title: 1 to 16 characters of the default repertoire, no backslash (PS3.5 6.2, VR AE)."""

Port = Annotated[int, Field(ge=0, le=65535)]

DaySpan = Annotated[
    str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")
]
"""A span of the day, ``HH:MM-HH:MM``; it may go over midnight."""

CertificateName = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True,
        pattern=r"^(sha256:([0-9A-Fa-f]{2}:?){32}|(CN|O|OU|C|ST|L|DNS|IP|URI)=.+)$",
    ),
]
"""Which certificate: ``sha256:`` and its fingerprint, or names that it must bear: ``CN=ct1, O=Clinic``, ``DNS=ct1``."""
