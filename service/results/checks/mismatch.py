"""How a self-check refuses."""

from service.errors import Quarantined


def require(holds: bool, kind: str, difference: str) -> None:
    """Refuse an object unless a statement about it holds.

    Parameters
    ----------
    kind
        Which object: ``SEG``, ``SR``.
    difference
        What is wrong if it does not hold; without a patient's data.

    Raises
    ------
    Quarantined
        It does not hold.
    """
    if not holds:
        raise Quarantined(f"self-check of the {kind}: {difference}; nothing is sent, run the series again or report it")
