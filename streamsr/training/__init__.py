"""Making the generators: data, losses, loops, checkpoints, export."""
