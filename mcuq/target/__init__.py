"""Boards, and what operators cost on their cores."""
