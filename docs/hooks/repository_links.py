"""Links from docs/ to files of the repository, `../gin/digits.gin`: on the site they lead nowhere, so they become text.

On a code host, where docs/ is read in place, they work as they are.
"""

import re

# [words](../path) that leaves docs/, and not an image.
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./[^)]*\)")


def on_page_markdown(markdown, **_):
    """Returns a page's Markdown without such links; MkDocs calls it for each page."""
    return _LINK.sub(r"\1", markdown)
