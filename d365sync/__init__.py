"""d365sync: Dynamics 365 sales goals, recomputed exactly and within minutes. Pure."""

__version__ = "0.1.0"
