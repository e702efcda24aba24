"""Bits, order and addresses: exact, and by the paper's rules."""
