"""Matplotlib figures of a run. Nothing here needs torch or a display."""
