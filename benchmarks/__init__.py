"""Figures of the project, each measured by the command that prints it."""
