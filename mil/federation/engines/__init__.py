"""How the coordinator reaches the hospitals."""
