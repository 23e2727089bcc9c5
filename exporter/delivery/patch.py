"""Binary patches of files: zstd frames with the old file as their dictionary."""

from __future__ import annotations

from exporter.delivery import update_file
from runtimes.errors import BadInput, NotInstalled

LEVEL, LARGEST_WINDOW = 19, 31
"""zstd's level, and the binary logarithm of its largest window, which must reach back over both files."""


def zstandard_library():  # type: ignore[no-untyped-def]  # a module
    """The module. Raises NotInstalled without it."""
    try:
        import zstandard
    except ImportError as error:
        raise NotInstalled("zstandard is not installed", remedy="pip install 'pocketship[delivery]'") from error
    return zstandard


def compressed(content: bytes, dictionary: bytes) -> bytes:
    """A zstd frame; with a dictionary it is a binary diff against that, as `zstd --patch-from` makes it."""
    zstandard = zstandard_library()
    window = min(LARGEST_WINDOW, max(10, (len(content) + len(dictionary)).bit_length() + 1))
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, window_log=window, enable_ldm=bool(dictionary), source_size=len(content)
    )
    given = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=given).compress(content)


def decompressed(frame: bytes, dictionary: bytes, size: int) -> bytes:
    """The `size` bytes of a frame.

    Raises BadInput where it holds anything else.
    """
    zstandard = zstandard_library()
    given = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    try:
        if zstandard.frame_content_size(frame) != size:  # before any of it is unpacked
            raise BadInput("a part of the update has another size", remedy=update_file.AGAIN)
        reader = zstandard.ZstdDecompressor(dict_data=given, max_window_size=1 << LARGEST_WINDOW)
        return reader.decompress(frame, max_output_size=size)
    except zstandard.ZstdError as error:
        raise BadInput(f"a part of the update cannot be unpacked ({error})", remedy=update_file.AGAIN) from error
