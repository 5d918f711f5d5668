"""How Sphinx makes the site of these documents: ``sphinx-build -W --keep-going docs dist/docs``.

The documents are written to be read on GitHub, and the site is made of the same files. What GitHub
needs none of is added while they are read: the navigation, made of the lists of pages; what is
generated (``site_pages.py``); and the documents that lie beside ``docs/``.

Does not: ask another host for anything, neither while it builds (no inventories of other projects)
nor while the site is read (no font or script from elsewhere).
"""

import re
import sys
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))  # for site_pages, which is no part of the package

import site_pages  # noqa: E402

from chestxray import __version__, errors  # noqa: E402

project = "chestxray"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["reports"]

myst_enable_extensions = ["tasklist"]
myst_heading_anchors = 4  # for links to headings, by GitHub's rule

# What links it finds nowhere are warnings, and warnings end the build.
nitpicky = True
nitpick_ignore_regex = [
    # Names of other projects, whose inventories would have to be asked from their hosts.
    (r"py:.*", r"(abc|collections|contextlib|datetime|os|pathlib|ssl|types)\..*"),
    (r"py:class", r"chestxray\..*\.[A-Z]"),  # type variables
    (r"py:.*", r"(httpx|np|numpy|pydantic|torch)\..*|NDArray|Tensor"),
]

autodoc_default_options = {
    "members": True,
    "undoc-members": True,  # the fields of data classes say what they are by their names
    "exclude-members": "model_config",  # pydantic's
}
autodoc_inherit_docstrings = False  # what PyTorch says of its own methods is not about ours
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
maximum_signature_line_length = 88
python_display_short_literal_types = True

html_theme = "furo"
html_title = f"chestxray {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", as_page)
    app.connect("autodoc-process-signature", mend_signature)
    app.connect("autodoc-skip-member", skip_field)
    app.connect("autodoc-process-docstring", mend_docstring, priority=900)  # after napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# --- from a document to its page ------------------------------------------------------------------

PAGE_OF = {
    "../MODEL_CARD.md": "model-card.md",
    "../CHANGELOG.md": "changelog.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../README.md": "index.md",
}
"""Documents beside ``docs/``, and the pages that stand for them."""

LISTS = {"index", "reference/python"}
"""Pages whose lists are the navigation."""

LINK = re.compile(r"(?P<text>\[[^\]]*\])\((?![a-z]+:|#)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]+)?\)")
SECTION = re.compile(r"<!-- site:(\S+) -->\n.*?<!-- /site -->\n", flags=re.DOTALL)


def as_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Turn the text of a document into that of its page.

    A section between ``<!-- site:NAME -->`` and ``<!-- /site -->`` is for readers on GitHub. The
    site has in its place what ``site_pages`` makes, or the document NAME in the repository's root.
    """
    text = SECTION.sub(lambda section: _made(app, section[1]), source[0])
    source[0] = LINK.sub(lambda link: _on_site(link, (DOCS / page).parent), text)
    if page in LISTS:
        source[0] += navigation(text)


def _made(app: Sphinx, name: str) -> str:
    if name in site_pages.PAGES:
        return site_pages.PAGES[name]()
    document = DOCS.parent / name
    app.env.note_dependency(document)
    return LINK.sub(_from_docs, document.read_text(encoding="utf-8"))


def _from_docs(link: re.Match[str]) -> str:
    """A link in the repository's root, as it reads in ``docs/``."""
    path = link["path"]
    path = path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}"
    return f"{link['text']}({path}{link['anchor'] or ''})"


def _on_site(link: re.Match[str], folder: Path) -> str:
    """A link to a document beside ``docs/`` leads to its page, and one to a folder nowhere.

    Sphinx makes the rest: links to pages, and copies of other files to download.
    """
    if (folder / link["path"]).is_dir():
        return link["text"][1:-1]
    return f"{link['text']}({PAGE_OF.get(link['path'], link['path'])}{link['anchor'] or ''})"


def navigation(text: str) -> str:
    """A hidden toctree for each heading, of the pages with which the items below it begin."""
    trees = [""]
    for part in re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]:
        caption, _, body = part.partition("\n")
        pages = re.findall(r"^- \[.*?\]\(([\w/-]+)\.md\)", body, flags=re.MULTILINE)
        if pages:
            lines = "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""
            trees.append("\n".join(lines))
    return "\n".join(trees)


# --- what autodoc makes poorly of the package -----------------------------------------------------


def mend_signature(
    _: Sphinx, what: str, __: str, thing: object, ___: object, signature: str | None, returns: Any
) -> tuple[str, Any] | None:
    """A model of pydantic has none: nobody calls it by hand, and its fields are listed below it."""
    if what == "class" and _is_model(thing):
        return "", None
    # What Python shows for the default_factory of a data class is no Python.
    return None if signature is None else (signature.replace("<factory>", "..."), returns)


def skip_field(app: Sphinx, *member: Any) -> bool | None:
    """``mend_docstring`` lists the fields of a model."""
    _, name, *_ = member
    at = app.env.current_document
    owner = getattr(sys.modules[at.autodoc_module], at.autodoc_class or "", None)
    return True if _is_model(owner) and name in owner.model_fields else None


def mend_docstring(
    _: Sphinx, what: str, name: str, thing: Any, __: object, lines: list[str]
) -> None:
    if lines and re.fullmatch(r"Alias for field number \d+", lines[0]):
        lines.clear()  # Python's own words for a field of a named tuple
    if what == "class" and _is_model(thing):
        for field, facts in thing.model_fields.items():
            kind = stringify_annotation(_plain(facts.annotation), "smart")
            meaning = (facts.description or "").replace("`", "``")
            lines += [f":ivar {field}: {meaning}", f":vartype {field}: {kind}"]
        lines.append("")
    if not name.startswith("chestxray.client"):  # which has errors of the same names
        lines[:] = [re.sub(r"^:raises (\w+)(?=:)", _from_errors, line) for line in lines]


def _from_errors(raises: re.Match[str]) -> str:
    return f":raises ~chestxray.errors.{raises[1]}" if hasattr(errors, raises[1]) else raises[0]


def _plain(hint: Any) -> Any:
    """A type without the bounds that pydantic is told of beside it."""
    if get_origin(hint) is Annotated:
        return _plain(get_args(hint)[0])
    if get_origin(hint) in {list, dict, tuple}:
        return get_origin(hint)[tuple(_plain(inner) for inner in get_args(hint))]
    return hint


def _is_model(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, BaseModel)
