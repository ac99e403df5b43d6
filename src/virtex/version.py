"""The package's name on an index and its version, both stated here alone."""

DISTRIBUTION = "virtex-vision"
"""Name that pip installs; `virtex` on the public index is another project."""
VERSION = "0.2.0.dev0"
