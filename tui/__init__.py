"""Everything that talks to a terminal: the viewer behind `tensorscope watch`, and the command line."""
