"""Episodes on disk to batches."""
