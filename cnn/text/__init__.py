"""Text for people: lines and tables on a terminal, counts and ratios in words."""
