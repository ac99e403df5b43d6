"""Images of sample captions, embedded in the page: files of the run alone, checked and bounded."""

import base64
import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_BYTES = 2**22
MAX_PIXELS = 2**24


def data_uri(name: str, folder: Path) -> str:
    """Return an image file as a data URI.

    Args:
        name: Path relative to the run folder, as samples.json has it.
        folder: The run folder, inside which the file must lie after links are resolved.

    Raises:
        ValueError: The file lies elsewhere, is missing, or is no whole image of a bounded size.
    """
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise ValueError("lies outside of the run folder")
        if not path.is_file():
            raise ValueError("is no regular file" if path.exists() else "does not exist")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a loop
        reason = error.strerror if isinstance(error, OSError) else None
        raise ValueError(f"cannot be read ({reason or error})") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES:,} bytes")
    return f"data:{_media_type(content)};base64,{base64.b64encode(content).decode()}"


def _media_type(content: bytes) -> str:
    """Return the media type of an encoded image, which is decoded to see that it is whole."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"has more than {MAX_PIXELS:,} pixels")
            image.load()
            return str(Image.MIME[image.format or ""])
    except UnidentifiedImageError:
        raise ValueError(f"is no image ({', '.join(FORMATS)} are allowed)") from None
    except ValueError:
        raise
    except Exception as error:  # Pillow's readers raise many kinds on corrupt files
        raise ValueError(f"is a damaged image ({error})") from error
