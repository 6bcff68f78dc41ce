"""The decisions of d365sync: values in, values out; no clock, no log, no IO. Pure."""
