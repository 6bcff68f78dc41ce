"""The local copy of what the goals need; disposable: delete it and the next cycle pulls it again. IO: SQL."""
