"""What Perennial costs, each number against its named peer in the same run: ``python -m benchmarks``."""
