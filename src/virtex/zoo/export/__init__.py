"""Export of models to the layouts of other libraries."""

from virtex.zoo.export.formats import ExportConfig, export, parse_export

__all__ = ["ExportConfig", "export", "parse_export"]
