"""One test per row of the table of faults, and what they share."""
