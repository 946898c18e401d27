"""Prefect flows: when to run, and which spec. What a run does and whether it is done is the business of `eo_batch`."""
