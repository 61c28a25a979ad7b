"""Emulators of clouds on this machine, to run and test the very things that are deployed there."""
