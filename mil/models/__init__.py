"""The zoo: one paper a file."""
