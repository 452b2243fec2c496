"""Links from docs/ to files of the repository, `../gin/digits.gin`, work on the site as well.

On a code host, where docs/ is read in place, they work as they are. The site gets a copy of each file that a page links
to: pictures and pages as they are, everything else with `.txt` behind its name, so that browsers show it.
"""

import pathlib
import posixpath
import re

from mkdocs.structure.files import File

_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
_COPIES = "files"
_AS_THEY_ARE = {".png", ".jpg", ".svg", ".html"}
# [words](path) and ![words](path), with or without a place in the file.
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#\s]+)(#[^)]*)?(\))")


def _copied(path: pathlib.Path) -> pathlib.Path:
    """Returns the file that stands for `path`: itself, or the page that describes a folder."""
    return path / "README.md" if (path / "README.md").exists() else path


def _name(path: pathlib.Path) -> str:
    """Returns where the site has its copy of a file or folder."""
    name = posixpath.join(_COPIES, path.relative_to(_REPOSITORY).as_posix())
    return name if path.suffix in _AS_THEY_ARE else f"{name}.txt"


def _content(path: pathlib.Path) -> bytes:
    if path.is_dir():
        return "\n".join(sorted(child.name for child in path.iterdir())).encode()
    return path.read_bytes()


def _target(page: pathlib.Path, link: str, docs: pathlib.Path):
    """Returns the file of the repository that a link leads to; None for the web, and for files of docs/ itself."""
    if "://" in link or link.startswith("mailto:"):
        return None
    path = (page.parent / link).resolve()
    if path.is_relative_to(docs) or not path.is_relative_to(_REPOSITORY) or not path.exists():
        return None
    return _copied(path)


def on_files(files, config):
    """Adds the copies to the files of the site; MkDocs calls it once."""
    docs, added = pathlib.Path(config.docs_dir), set()
    for page in list(files.documentation_pages()):
        source = pathlib.Path(page.abs_src_path)
        for match in _LINK.finditer(source.read_text(encoding="utf-8")):
            path = _target(source, match[2], docs)
            if path is not None and path not in added:
                added.add(path)
                files.append(File.generated(config, _name(path), content=_content(path)))
    return files


def on_page_markdown(markdown, page, config, **_):
    """Returns a page's Markdown with links to the copies; MkDocs calls it for each page."""
    source, docs = pathlib.Path(page.file.abs_src_path), pathlib.Path(config.docs_dir)

    def to_copy(match):
        path = _target(source, match[2], docs)
        if path is None:
            return match[0]
        link = posixpath.relpath(_name(path), posixpath.dirname(page.file.src_uri) or ".")
        return f"{match[1]}{link}{match[4]}"

    return _LINK.sub(to_copy, markdown)
