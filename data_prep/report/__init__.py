"""The command ``report``: what a folder of converted datasets holds, beside what the paper lists."""
