"""``[node]``: who this node is."""

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from service.settings.section import AETitle, Port, Section


class NodeSettings(Section):
    """``[node]``: who this node is, where it listens, whom it talks to."""

    ae_title: AETitle = "WETREAD"
    host: str = "127.0.0.1"
    port: Port = 11112
    accept_unknown_senders: bool = False
    accept_carried_along: bool = True
    """Store SR, SEG, secondary captures and the like that travel with a study; they are never processed."""
    accept_private: bool = False
    """Store instances of private SOP classes, and those in private transfer syntaxes; they are never processed."""
    maximum_pdu: Annotated[int, Field(ge=4096, le=1 << 20)] = 131072
    maximum_associations: Annotated[int, Field(ge=1)] = 50
    maximum_associations_per_sender: Annotated[int, Field(ge=1)] = 25
    """For each calling AE title, so that one sender that never ends its associations leaves room for the others."""
    receivers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that receive. 1: the node itself; more: that many beside it, for many senders at once on many cores."""
    encoders: Annotated[int, Field(ge=1, le=64)] = 2
    """Processes that encode results, each those of one model about one image at a time."""
    user_identity: Literal["ignore", "refuse", "require"] = "ignore"
    """What to do with the user that a sender may name (PS3.7 D.3.3.7). require: only with a name and passcode of
    ``users``."""
    users: dict[str, Annotated[SecretStr, Field(min_length=1)]] = Field(default_factory=dict)
    """Passcodes by user name."""
    idle_seconds: Annotated[float, Field(gt=0)] = 60.0
    """For a peer to go on, within an association: with its next message, or with the one it is at, to which 1 s more is
    allowed for each KiB that has come of it."""
    artim_seconds: Annotated[float, Field(gt=0)] = 30.0
    """For a peer that has connected to ask for an association (PS3.8 9.1.5)."""
    association_seconds: Annotated[float, Field(gt=0)] = 14400.0
    """For an association as a whole."""

    @model_validator(mode="after")
    def _somebody_is_known(self) -> Self:
        if self.user_identity == "require" and not self.users:
            raise ValueError('node.user_identity = "require", and no user is known; add [node.users] with passcodes')
        return self
