"""Streams: a history of rows, checked once, cut into batches by the data alone, and read as often as wanted."""

from perennial.stream.lookback import LookBack
from perennial.stream.prepared import Prepared, StreamLabels
from perennial.stream.quality import Quality
from perennial.stream.settings import Stream

__all__ = ["LookBack", "Prepared", "Quality", "Stream", "StreamLabels"]
