"""One module for each format of the journal. Pure."""
