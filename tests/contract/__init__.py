"""One contract that every source keeps against every server."""
