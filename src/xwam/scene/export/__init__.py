"""4D scenes for other programs, a module a format."""
