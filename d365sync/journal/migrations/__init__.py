"""Migrations of the journal, one file for each format, run by alembic inside the package.

A change of the models is a new file in ``versions``: its revision is the number of the format it makes, it brings
``journal_format`` to that number, and :data:`~d365sync.journal.models.FORMAT` becomes it.

Pure.
"""
