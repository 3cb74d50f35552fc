"""``CARD.md``: what the source says of itself; what it does not say is left as TODO, to be filled in by a person."""

from build_engines.importers.draft import Draft

HEADINGS = ("Training data", "Figures", "Limits")
"""What a card needs whatever the source says (docs/model-package.md)."""

TODO = "TODO: the source does not say."


def card(draft: Draft) -> str:
    """Write the card of an imported model."""
    labels = [label for head in draft.heads for label in head.labels]
    lines = [
        f"# {draft.name}",
        "",
        "**Research use only.** Not a medical device; not for diagnosis.",
        "",
        f"- **Source**: {draft.source}",
        f"- **Licence of the weights**: {draft.licence}",
        f"- **What it gives**: {', '.join(labels)}",
        "",
        *_section("Intended use", draft.intended_use),
    ]
    told = dict(draft.card)
    for heading in HEADINGS:
        lines += _section(heading, told.pop(heading, TODO))
    for heading, text in told.items():
        lines += _section(heading, text)
    kinds = ("assumed", "left out", "to check")
    remarks = [f"- {remark.kind}: {remark.what}: {remark.text}" for remark in draft.remarks if remark.kind in kinds]
    lines += _section("Import", "\n".join(remarks) or "Everything that the source says was taken over.")
    return "\n".join(lines).rstrip() + "\n"


def _section(heading: str, text: str) -> list[str]:
    return [f"## {heading}", "", text.strip() or TODO, ""]
