"""Identifiers and comments: nothing a model file says becomes C code."""

from __future__ import annotations

import re

from mcuq.errors import UsageError

_WORDS = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class
    compl concept const consteval constexpr constinit const_cast continue co_await co_return co_yield decltype
    default delete do double dynamic_cast else enum explicit export extern false float for friend goto if inline
    int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public register
    reinterpret_cast requires restrict return short signed sizeof static static_assert static_cast struct switch
    template this thread_local throw true try typedef typeid typename typeof union unsigned using virtual void
    volatile wchar_t while xor xor_eq
    main errno stdin stdout stderr unix linux arm mcuq
"""
_KEYWORDS = frozenset(_WORDS.split())
_PREFIX = re.compile(r"[a-z][a-z0-9_]{0,30}")


def check_prefix(prefix: str) -> str:
    """``prefix`` when it can start every public name of a model.

    Raises:
        UsageError: it is not ``[a-z][a-z0-9_]{0,30}``, is a word of C or C++, or belongs to the runtime.
    """
    if not _PREFIX.fullmatch(prefix):
        raise UsageError(
            f"model name {prefix[:48]!r} cannot be a C prefix; use a lower-case letter, then at most 30 of a-z 0-9 _"
        )
    if prefix in _KEYWORDS or prefix.startswith("mcuq_"):
        raise UsageError(
            f"model name {prefix!r} is a word of C, C++ or the runtime; choose another, for example {prefix}_net"
        )
    return prefix


def comment_name(name: str) -> str:
    """A layer's name as it may stand in a comment: at most 48 characters of ``A-Za-z0-9_.-``."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:48]
