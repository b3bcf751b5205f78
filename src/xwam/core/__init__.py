"""The nouns that move between rooms, and the conventions they follow."""
