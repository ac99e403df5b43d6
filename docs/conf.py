"""Settings of the documentation site: `make docs` builds it with Sphinx, MyST and furo."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "virtex"
author = "the virtex authors"
copyright = author
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "scripts.docs.site"]
html_theme = "furo"
html_title = "virtex"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
exclude_patterns = ["_build", "notebooks"]
highlight_language = "none"
smartquotes = False  # they turn the dashes of options into one
myst_heading_anchors = 4
autodoc_member_order = "bysource"
napoleon_use_rtype = False
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!virtex\.).*"),  # names of other packages, and aliases such as ImageInputs
]
nitpick_ignore = [  # arguments of what is on a page, which are on none themselves
    ("py:class", f"virtex.{name}")
    for name in (
        "models.decoding.Generated",
        "models.kv_cache.KeyValueCache",
        "models.packing.Packing",
        "models.textual_head.HeadConfig",
        "tasks.contrastive.Contrastive",
        "zoo.init.Trained",
        "zoo.models.Published",
    )
]
