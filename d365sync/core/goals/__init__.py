"""Sales goals: what they are, which records count for them, their totals, and what to write back. Pure."""
