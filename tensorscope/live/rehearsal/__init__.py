"""Forwards on tensors without data: what they are given, how they run, and for which sizes."""
