"""One recorded training, on disk: what a file holds, how it is written, how it is read. Nothing here needs torch."""
