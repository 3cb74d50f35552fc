"""``[retry]``: what is tried again, and for how long."""

from typing import Annotated

from pydantic import Field

from service.settings.section import Section


class RetrySettings(Section):
    """``[retry]``: what happens when an archive is away. The n-th retry waits ``first_seconds * 2**n``, at most
    ``longest_seconds``; after ``give_up_hours`` the work becomes a dead letter.
    """

    first_seconds: Annotated[float, Field(gt=0)] = 5.0
    longest_seconds: Annotated[float, Field(gt=0)] = 900.0
    give_up_hours: Annotated[float, Field(gt=0)] = 72.0
