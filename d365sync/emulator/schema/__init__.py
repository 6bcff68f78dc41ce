"""The shipped tables, as data (``tables/*.json``), and the loader that also reads an org's ``schema.json``.

Source of the tables: goal, metric, rollupfield and goalrollupquery table references; the other tables as a
Dynamics 365 Sales org describes them.
"""
