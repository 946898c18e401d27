"""eo-batch: from an area and dates to aligned chips, an encoder, its embeddings and what they are worth."""

__version__ = "0.1.0"
