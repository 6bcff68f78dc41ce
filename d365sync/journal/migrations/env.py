"""What alembic runs to migrate: on the connection, and in the transaction, that it was given.

IO: SQL.
"""

from __future__ import annotations

from alembic import context

from d365sync.journal.models import JournalModel

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=JournalModel.metadata,
    render_as_batch=True,
)
context.run_migrations()
