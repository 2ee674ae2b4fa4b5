"""`report.html`: what was measured, as a page that one would rather look at than read numbers."""

from facerestore.engine.report.report import Better, DataSection, Picture, direction, write_report

__all__ = ["Better", "DataSection", "Picture", "direction", "write_report"]
