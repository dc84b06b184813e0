"""The rules: what is wrong with a training, where, and what to do. They read a run and need no torch."""
