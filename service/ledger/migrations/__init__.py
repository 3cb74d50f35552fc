"""How a ledger becomes one of the next version (Alembic). A file in ``versions`` for each step; none changes later."""
