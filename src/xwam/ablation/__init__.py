"""`xwam ablate`: variants trained and scored alike, in one table."""
