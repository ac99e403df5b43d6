"""Write any source in the layouts of public data sets."""

from virtex.data.layouts.layout_writer import (
    LAYOUTS,
    WriteScenesConfig,
    write_scenes,
    write_scenes_from,
    write_sources,
)

__all__ = ["LAYOUTS", "WriteScenesConfig", "write_scenes", "write_scenes_from", "write_sources"]
