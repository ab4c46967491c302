"""Runs git. Every call of git in this project is in this module."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipelines.repo.hashes import folder_digest, is_tracked, md5_of


class GitError(RuntimeError):
    """A git command failed; the message is git's own."""


def run(*arguments: str, root: Path = Path(), stdin: bytes | None = None) -> bytes:
    """Runs git in a folder and returns what it prints.

    Raises:
        GitError: git failed, for example outside of a repository.
    """
    done = subprocess.run(["git", *arguments], cwd=root, input=stdin, capture_output=True, check=False)
    if done.returncode:
        raise GitError(f"git {arguments[0]}: {(done.stderr or done.stdout).decode(errors='replace').strip()}")
    return done.stdout


def text(*arguments: str, root: Path = Path()) -> str:
    """Runs git and returns what it prints as text, without surrounding white space. Raises `GitError`."""
    return run(*arguments, root=root).decode("utf-8", "surrogateescape").strip()


def head(root: Path = Path()) -> str | None:
    """The hash of the current commit; None outside of a repository, before its first commit, or without git."""
    try:
        return text("rev-parse", "--verify", "--quiet", "HEAD", root=root)
    except (GitError, FileNotFoundError):
        return None


def objects(names: Sequence[str], root: Path = Path()) -> list[bytes | None]:
    """The contents of git objects ("<commit>:./<path>" or a hash), in one call; None for each that is missing.

    Raises:
        GitError: the folder is in no repository.
    """
    answer = run("cat-file", "--batch", root=root, stdin="".join(f"{name}\n" for name in names).encode())
    found: list[bytes | None] = []
    start = 0
    for _ in names:
        end = answer.index(b"\n", start)
        header = answer[start:end].split()
        start = end + 1
        if header[-1] in (b"missing", b"ambiguous"):
            found.append(None)
            continue
        size = int(header[2])
        found.append(answer[start : start + size])
        start += size + 1
    return found


def show(commit: str, path: str, root: Path = Path()) -> bytes | None:
    """A file as a commit has it; None where the commit or the file is missing."""
    try:
        return objects([f"{commit}:./{path}"], root)[0]
    except GitError:
        return None


def committed_files(path: str, commit: str, root: Path = Path()) -> dict[str, str]:
    """The MD5 of each file at or below `path` in a commit, by its path; empty where the commit does not have it."""
    try:
        listing = run("ls-tree", "-r", "-z", commit, "--", path, root=root)
    except GitError:
        return {}
    entries = [entry.split(b"\t", 1) for entry in listing.split(b"\0") if entry]
    entries = [entry for entry in entries if is_tracked(Path(entry[1].decode("utf-8", "surrogateescape")))]
    contents = objects([about.split()[2].decode() for about, _ in entries], root) if entries else []
    return {
        name.decode("utf-8", "surrogateescape"): md5_of(content or b"")
        for (_, name), content in zip(entries, contents, strict=True)
    }


def committed_digest(path: str, commit: str, root: Path = Path()) -> str | None:
    """DVC's hash of a file or folder as a commit has it; None where the commit does not have it."""
    files = committed_files(path, commit, root)
    if list(files) == [path]:
        return files[path]
    return (
        folder_digest((name.removeprefix(f"{path}/"), digest) for name, digest in files.items())
        if files
        else None
    )
