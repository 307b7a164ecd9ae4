"""The command line: what several commands have in common."""
