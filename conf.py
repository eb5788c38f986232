"""Sphinx configuration of the guide; the sources are in ``docs/``.

    sphinx-build -n -W --keep-going -b html -c . docs _build/html -d _build/doctrees

Nothing here reaches the network, and no page asks another host for anything.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

from guide_ext.figures import gallery_conf  # noqa: E402

import attn_guide  # noqa: E402

# --- what the site is ------------------------------------------------------------------------------------------------

project = "Attention Mechanisms: A Visual Guide"
author = "The attn_guide authors"
project_copyright = author
release = version = attn_guide.__version__
language = "en"  # `make translation` builds with another one
locale_dirs = ["locale"]
gettext_compact = False  # a catalog for each page
gettext_uuid = False

# Where the sources are, and where the site will be; a fork or a deployment sets these two. Read the Docs says where.
REPOSITORY = os.environ.get("GITHUB_REPOSITORY", "attn-guide/attn_guide")
PUBLISHED = os.environ.get("READTHEDOCS_CANONICAL_URL", "https://attn-guide.github.io/")
BASE_URL = os.environ.get("GUIDE_BASE_URL", PUBLISHED).rstrip("/") + "/"

# --- extensions ------------------------------------------------------------------------------------------------------

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
    "notfound.extension",
    "sphinxext.opengraph",
    "guide_ext.benchmarks",
    "guide_ext.catalogue",
    "guide_ext.conventions",
    "guide_ext.errata",
    "guide_ext.explorers",
    "guide_ext.figures",
    "guide_ext.hosting",
    "guide_ext.mathml",
    "guide_ext.notebooks",
    "guide_ext.prose",
    "guide_ext.site",
]

root_doc = "index"
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = [
    "_ext",
    "_static",
    "_templates",
    "**/README.md",
    "gallery/**/*.ipynb",
    "gallery/**/*.py",
    "gallery/**/*.json",
]
templates_path = ["docs/_templates"]
nitpicky = True
keep_warnings = False
show_warning_types = True

# --- prose -----------------------------------------------------------------------------------------------------------

myst_enable_extensions = [
    "amsmath",
    "attrs_block",
    "attrs_inline",
    "colon_fence",
    "deflist",
    "dollarmath",
    "fieldlist",
    "tasklist",
]
myst_heading_anchors = 4
myst_dmath_double_inline = True
myst_links_external_new_tab = False
smartquotes = True
smartquotes_excludes = {"builders": ["man", "text"], "languages": ["ja"]}

html_math_renderer = "mathml"
math_eqref_format = "equation ({number})"

guide_repository = f"https://github.com/{REPOSITORY}/blob/main"

sphinx_gallery_conf = gallery_conf()

bibtex_bibfiles = ["docs/refs.bib"]
bibtex_default_style = "guide"
bibtex_reference_style = "author_year_round"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"

# --- API -------------------------------------------------------------------------------------------------------------

autodoc_typehints = "none"  # numpydoc sections give types and shapes
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# --- HTML ------------------------------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = project
html_short_title = "Attention"
html_baseurl = BASE_URL
html_static_path = ["docs/_static"]
html_css_files = ["guide.css"]
html_js_files = [("guide.js", {"defer": "defer"})]
html_favicon = "docs/_static/favicon.svg"
html_show_sphinx = True
html_show_sourcelink = True
html_copy_source = True
html_sidebars = {"**": ["sidebar-guide.html"]}

html_context = {
    "github_user": REPOSITORY.partition("/")[0],
    "github_repo": REPOSITORY.partition("/")[2],
    "github_version": "main",
    "doc_path": "docs",
    "default_mode": "auto",
}
html_theme_options = {
    "logo": {
        "text": "Attention",
        "alt_text": "Attention Mechanisms: home",
        "image_light": "_static/logo.svg",
        "image_dark": "_static/logo.svg",
    },
    "icon_links": [
        {"name": "Source on GitHub", "url": f"https://github.com/{REPOSITORY}", "icon": "fa-brands fa-github"}
    ],
    "switcher": {"json_url": "_static/switcher.json", "version_match": release},
    "navbar_start": ["navbar-logo", "version-switcher"],
    "navbar_center": [],
    "navbar_end": ["theme-switcher", "navbar-icon-links"],
    "navbar_persistent": ["search-button-field"],
    "search_bar_text": "Search the guide",
    "use_edit_page_button": True,
    "show_prev_next": True,
    "show_toc_level": 2,
    "navigation_depth": 2,
    "collapse_navigation": False,
    "navigation_with_keys": False,
    "back_to_top_button": True,
    "secondary_sidebar_items": ["page-toc", "edit-this-page", "sourcelink", "notebook"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

# --- what other machines read ----------------------------------------------------------------------------------------

notfound_urls_prefix = urlsplit(BASE_URL).path
notfound_context = {
    "title": "Page not found",
    "body": (
        "<h1>Page not found</h1><p>There is no page at this address. It may have moved: the contents list every page, "
        "and the search finds every word. Or begin at "
        f'<a href="{notfound_urls_prefix}index.html">the first page</a>.</p>'
    ),
}
ogp_site_url = BASE_URL
ogp_site_name = project
ogp_enable_meta_description = True
ogp_social_cards = {"enable": False}  # guide_ext.hosting draws cards with figures
ogp_custom_meta_tags = ['<meta name="twitter:card" content="summary_large_image" />']
