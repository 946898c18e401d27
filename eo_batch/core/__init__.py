"""Values: spec, grid, sensors, scenes, plan, layout, errors. No I/O."""
