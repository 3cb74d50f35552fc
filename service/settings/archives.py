"""``[archives.NAME]``: where results go, and what may be asked there."""

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, StringConstraints, ValidationInfo, field_validator, model_validator

from service.results.profile import ResultProfile
from service.settings.section import AETitle, DaySpan, Section
from service.settings.tls import ArchiveTlsSettings
from service.types import Web


class ArchiveSettings(Section):
    """``[archives.NAME]``: an archive that takes results by C-STORE, and can be asked about the series it sends."""

    ae_title: AETitle
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    count: Literal["no", "c-find", "qido"] = "c-find"
    """How it is asked how many instances of a series it has. One that refuses is asked no more until a restart."""
    send: Literal["c-store", "stow-rs"] = "c-store"
    """How results are sent there."""
    fetch: Literal["no", "c-get", "c-move", "wado-rs"] = "no"
    """How instances are fetched that it has and that did not come. For c-move it must know this node's AE title."""
    dicomweb: Annotated[str, StringConstraints(pattern=r"^(https?://\S+)?$"), Field(validate_default=True)] = ""
    """Base URL of its DICOMweb services, for qido, wado-rs and stow-rs."""
    dicomweb_token: SecretStr = SecretStr("")
    """Bearer token that its DICOMweb services are shown."""
    dicomweb_user: str = ""
    """User name that they are shown instead, with ``dicomweb_password`` (basic authentication)."""
    dicomweb_password: SecretStr = SecretStr("")
    parallel: Annotated[int, Field(ge=1, le=16)] = 1
    """How many deliveries are at work at a time, each over an association of its own."""
    objects_per_second: Annotated[float, Field(ge=0)] = 0.0
    """It is sent no more than that; 0 for no limit."""
    megabytes_per_second: Annotated[float, Field(ge=0)] = 0.0
    windows: tuple[DaySpan, ...] = ()
    """When it is sent to, in local time: "19:00-06:00"; empty for always. What is begun is brought to its end."""
    answer_seconds: Annotated[float, Field(gt=0)] = 60.0
    """For it to answer each object."""
    commitment: Literal["auto", "require", "verify", "no"] = "auto"
    """How it is made sure that it has what it was sent. auto: by storage commitment; where it has none, or never
    reports, it is asked whether it lists the objects (as ``count`` says); where it does neither, they stay at sent.
    require: by storage commitment, or it is a dead letter. verify: only whether it lists them. no: not at all."""
    commitment_seconds: Annotated[float, Field(gt=0)] = 600.0
    """After so long without a report storage commitment is asked for again."""
    tls: ArchiveTlsSettings | None = None
    results: ResultProfile = ResultProfile()

    @field_validator("fetch")
    @classmethod
    def _fetch_follows_count(cls, value: str, info: ValidationInfo) -> str:
        if value != "no" and info.data.get("count") == "no":
            raise ValueError('only the count tells that something is missing; set count to "c-find" or "qido"')
        return value

    @field_validator("dicomweb")
    @classmethod
    def _dicomweb_where_needed(cls, value: str, info: ValidationInfo) -> str:
        for key, way in (("count", "qido"), ("fetch", "wado-rs"), ("send", "stow-rs")):
            if not value and info.data.get(key) == way:
                raise ValueError(f'{key} = "{way}" needs it; for example "http://pacs:8042/dicom-web"')
        return value.rstrip("/")

    @model_validator(mode="after")
    def _one_way_to_show_who_asks(self) -> Self:
        if self.dicomweb_user and self.dicomweb_token.get_secret_value():
            raise ValueError("dicomweb_token and dicomweb_user exclude each other; name one of them")
        if bool(self.dicomweb_user) != bool(self.dicomweb_password.get_secret_value()):
            raise ValueError("dicomweb_user and dicomweb_password go together; name both")
        return self

    @property
    def web(self) -> Web:
        """How its DICOMweb services are spoken to."""
        password = self.dicomweb_password.get_secret_value()
        return Web(self.dicomweb, self.dicomweb_token.get_secret_value(), self.dicomweb_user, password)
