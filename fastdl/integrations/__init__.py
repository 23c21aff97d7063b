"""fastdl inside other packages: one module for each, which imports it; none is needed by fastdl itself."""
