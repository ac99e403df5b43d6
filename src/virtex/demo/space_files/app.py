"""A demo that `virtex demo --space` wrote: the page and the JSON API of one captioner."""

import json
import os
from pathlib import Path

from virtex.demo.demo_config import DemoConfig
from virtex.demo.server import serve

FOLDER = Path(__file__).parent


def config() -> DemoConfig:
    """Return the options of the demo, whose files lie beside this one."""
    model = json.loads((FOLDER / "model.json").read_text(encoding="utf-8"))
    init, tokenizer, gallery = model["init"], model["tokenizer"], FOLDER / "gallery"
    return DemoConfig(
        init=init if init.startswith("hf-hub:") else str(FOLDER / init),
        tokenizer=None if tokenizer is None else FOLDER / tokenizer,
        gallery=gallery if gallery.is_dir() else None,
        max_upload_mb=model["max_upload_mb"],
        host="0.0.0.0",
        port=int(os.environ.get("PORT", "7860")),
        allowed_hosts=os.environ.get("SPACE_HOST", ""),
    )


if __name__ == "__main__":
    serve(config(), embedded_in=("https://huggingface.co", "https://*.hf.space"))
