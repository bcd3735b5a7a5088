"""A preprocessor of mdBook for links that lead out of the guide.

mdBook makes `.md` into `.html` in each relative link, although a page outside of `src` is not in
the book. This spells the dot of such a link as `%2E`, so that mdBook leaves it alone. `src` and
`book` lie side by side, so the link leads to the file in the repository.
"""

import json
import posixpath
import re
import sys

LINK = re.compile(r"(\]\()([^)\s#:]+)\.md(#[^)\s]*)?\)")


def mend(chapter):
    folder = posixpath.dirname(chapter["path"] or "")

    def spelt(link):
        leaves = posixpath.normpath(posixpath.join(folder, link[2])).startswith("..")
        return f"{link[1]}{link[2]}%2Emd{link[3] or ''})" if leaves else link[0]

    chapter["content"] = LINK.sub(spelt, chapter["content"])
    for item in chapter["sub_items"]:
        if "Chapter" in item:
            mend(item["Chapter"])


if sys.argv[1:2] == ["supports"]:
    sys.exit(sys.argv[2:] != ["html"])
_context, book = json.load(sys.stdin)
for item in book.get("items", book.get("sections", [])):
    if "Chapter" in item:
        mend(item["Chapter"])
json.dump(book, sys.stdout)
