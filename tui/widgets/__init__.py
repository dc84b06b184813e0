"""What is on a screen; each widget owns its look, its keys and its messages."""
