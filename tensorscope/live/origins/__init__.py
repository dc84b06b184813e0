"""Finding, in a pass that is run again, where a number stopped being finite."""
