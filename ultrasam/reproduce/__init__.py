"""The paper's tables and figures again: its numbers, ours, their difference and interval."""
