"""One door: run one shard of one stage and write its receipt; and drive all stages through it."""
