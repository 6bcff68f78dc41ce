"""Kill loops: a process is killed wherever it could leave a trace, and the next one must mend what is left."""
