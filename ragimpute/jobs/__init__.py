"""Work for many machines: regions and batches, and their results joined."""
