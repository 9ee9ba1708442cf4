"""Why a model says what it says: signed scores of tiles, how far they can be believed, and files that viewers open."""
