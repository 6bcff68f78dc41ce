"""The line itself: pull, recompute, push, and the cycle that joins them. IO: through its parts."""
