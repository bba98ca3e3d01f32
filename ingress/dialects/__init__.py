"""Client wire formats: each module turns requests into calls and frames into answers."""
