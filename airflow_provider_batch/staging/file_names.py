"""Names of files that are about something whose name others chose."""

from __future__ import annotations

from hashlib import sha256

from slugify import slugify

#: letters of a title that are looked at, and that a name keeps
_READ, _KEPT = 500, 60


def file_name(title: str, key: str, ending: str = "") -> str:
    """The name of the file about what is called `title`, and is told from all others by `key`.

    It holds nothing but `a-z`, `0-9` and `-`, 77 of them at most, besides the ending; so it names one file in any
    folder of any disk or object store, whatever the title is. Titles that look the same in it get files of their own,
    by the digest of their keys; the same title and key always get the same. A title that changes gets another file.

    :param ending: such as `.html`; yours, used as it is.
    """
    digest = sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    slug = slugify(title[:_READ], max_length=_KEPT)
    return f"{slug}-{digest}{ending}" if slug else f"{digest}{ending}"
