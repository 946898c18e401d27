"""Arrays in, arrays out: alignment, masks, composites, statistics, the simulated planet."""
