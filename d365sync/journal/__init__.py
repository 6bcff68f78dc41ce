"""Our durable memory: runs, and every write before and after it was sent. IO: SQL."""
