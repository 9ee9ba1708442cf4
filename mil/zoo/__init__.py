"""Released tools: reports, cards, versions."""
