"""The fault campaign: a site of real processes, harm done to it by seed, and an audit that knows nothing of its code.

::

    python -m tests.faults.campaign --seeds 0-329 [--only FAULT] [--folder DIR] [--json]

`world` is a site (nodes, Orthanc, a database, senders), `fault` what is done to it, `audit` what is looked at then;
`catalogue` lists all faults, `run` puts one run together.
"""
