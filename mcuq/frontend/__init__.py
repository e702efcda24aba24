"""From users' models to the float Graph."""
