"""The room that runs programs: compilers, linkers and emulators, and reads what they made."""
