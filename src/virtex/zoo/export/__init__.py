"""Write a model in the layouts that other libraries read."""

from virtex.zoo.export.command import ExportConfig, export, parse_export

__all__ = ["ExportConfig", "export", "parse_export"]
