"""`report.html`: what was measured, as a page that one would rather look at than read numbers."""

from facerestore.engine.report.report import DataSection, Picture, direction, write_report

__all__ = ["DataSection", "Picture", "direction", "write_report"]
