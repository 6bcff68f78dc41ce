"""The command line: each file parses one group of commands, calls the app, and prints. IO: terminal."""
