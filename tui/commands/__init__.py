"""The commands of `tensorscope`, one a file."""
