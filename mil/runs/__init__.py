"""Several runs beside each other: two compared, many ranked, one chosen, two designs."""
