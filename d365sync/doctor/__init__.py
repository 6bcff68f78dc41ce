"""``doctor``: checks of everything a run needs, each by itself; nothing is changed."""
