"""``[http]``: health and metrics."""

from service.settings.section import Port, Section


class HttpSettings(Section):
    """``[http]``: where ``/health`` and ``/metrics`` are served."""

    host: str = "127.0.0.1"
    port: Port = 8080
