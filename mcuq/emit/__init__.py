"""Integer graph and memory plan to a C source tree."""
