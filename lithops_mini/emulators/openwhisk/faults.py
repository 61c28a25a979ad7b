"""Which of the faults that were asked for come now."""

from __future__ import annotations

from lithops_mini.emulators import faults
from lithops_mini.emulators.openwhisk.settings import Faults

Dice = faults.Dice[Faults]
"""Throws the dice of the local OpenWhisk."""
