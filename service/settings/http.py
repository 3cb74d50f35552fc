"""``[http]``: health, metrics and the operator's page."""

from pydantic import SecretStr, field_validator

from service.settings.section import Port, Section

SHORTEST_PASSWORD = 12


class HttpSettings(Section):
    """``[http]``: where ``/health``, ``/metrics`` and the operator's page are served."""

    host: str = "127.0.0.1"
    port: Port = 8080
    password: SecretStr = SecretStr("")
    """For the operator's page and its buttons, under any user name; empty: they are for this machine only. Health and
    metrics are open to all who reach the port."""

    @field_validator("password")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < SHORTEST_PASSWORD:
            raise ValueError(f"shorter than {SHORTEST_PASSWORD} characters; `openssl rand -hex 16` makes one")
        return value
