"""Screens compose widgets and route what they say."""
