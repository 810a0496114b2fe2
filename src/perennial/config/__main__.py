"""``python -m perennial.config`` writes the JSON Schema that is shipped, after the records changed."""

from perennial.config.schema import FILE, text

FILE.write_text(text(), encoding="utf-8")
