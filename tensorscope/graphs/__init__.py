"""The computation graph: its data, its folding, its drawing; no torch here."""
