"""`make bench-long`: what only shows after millions of rows, or after half an hour."""
