"""Who may see the dashboard: one token in a file, sessions in memory, forms that only our own pages can send.

    DIR/token          whoever can read it may sign in (0600, 256 bits of the operating system's entropy)
    DIR/metrics.token  whoever can read it may read /metrics, nothing else

A session is a random cookie (HttpOnly, SameSite=Strict) that lasts 8 hours at most and 1 hour unused; its form token is
another random value. Both are compared in constant time. Five wrong tokens within a minute close the door for a minute.
A restart of the server ends all sessions. Replacing DIR/token takes effect at once, and ends all sessions too.
"""

from __future__ import annotations

import hmac
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qfed.errors import StateError

COOKIE = "qfed_session"
TOKEN, METRICS_TOKEN = "token", "metrics.token"
LONGEST, IDLE = 8 * 3600.0, 3600.0
WRONG, WINDOW = 5, 60.0
_MOST_SESSIONS = 64


def make_token(file: Path) -> str:
    """The token in `file`, made at the first call; StateError when the file holds none."""
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_token(file)
    with os.fdopen(handle, "w", encoding="ascii") as out:
        out.write(secrets.token_urlsafe(32) + "\n")
        out.flush()
        os.fsync(out.fileno())
    return read_token(file)


def read_token(file: Path) -> str:
    """The token in `file`; StateError when there is none of at least 20 characters."""
    try:
        token = file.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise StateError(f"cannot read the token {file} ({error.strerror}); restart to have a new one made") from None
    if len(token) < 20:
        raise StateError(f"{file} holds no token of at least 20 characters; remove it, and restart to have one made")
    return token


def same(one: str, other: str) -> bool:
    """Whether two secrets are equal, in time that tells nothing of where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


@dataclass
class Session:
    """One signed-in browser."""

    form: str
    """What its forms must carry."""
    began: float
    used: float
    token: str
    """The token it was opened with."""


class Gate:
    """Sessions and the count of wrong tokens; safe to ask from several threads."""

    def __init__(self, file: Path, clock: Callable[[], float]) -> None:
        self._file, self._clock = file, clock
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._wrong: deque[float] = deque()
        make_token(file)

    def wait(self) -> float:
        """Seconds until another token may be tried; 0 when it may now."""
        with self._lock:
            return self._wait(self._clock())

    def sign_in(self, token: str) -> str | None:
        """A new session's cookie; None when the token is wrong or too many were."""
        with self._lock:
            now = self._clock()
            if self._wait(now):
                return None
            right = read_token(self._file)
            if not same(token, right):
                self._wrong.append(now)
                return None
            self._expire(now, right)
            while len(self._sessions) >= _MOST_SESSIONS:
                self._sessions.pop(min(self._sessions, key=lambda cookie: self._sessions[cookie].used))
            cookie = secrets.token_urlsafe(32)
            self._sessions[cookie] = Session(secrets.token_urlsafe(32), now, now, right)
            return cookie

    def session(self, cookie: str | None) -> Session | None:
        """The session of a cookie, if it still holds."""
        with self._lock:
            now = self._clock()
            self._expire(now, read_token(self._file))
            if cookie is None:
                return None
            # Looked up by a 256-bit random value: how long a dictionary takes tells nothing of other keys.
            found = self._sessions.get(cookie)
            if found is not None:
                found.used = now
            return found

    def sign_out(self, cookie: str | None) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(cookie or "", None)

    def _wait(self, now: float) -> float:
        while self._wrong and now - self._wrong[0] >= WINDOW:
            self._wrong.popleft()
        return 0.0 if len(self._wrong) < WRONG else WINDOW - (now - self._wrong[0])

    def _expire(self, now: float, token: str) -> None:
        self._sessions = {
            cookie: each
            for cookie, each in self._sessions.items()
            if now - each.began < LONGEST and now - each.used < IDLE and same(each.token, token)
        }
