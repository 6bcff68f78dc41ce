"""The service: cycles by a schedule, several environments, one instance at a time."""
