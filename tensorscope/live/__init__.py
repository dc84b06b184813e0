"""All that touches a running model: hooks, statistics, the trace, the capture of its graph, shape contracts."""
