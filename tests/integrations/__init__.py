"""fastdl inside other packages; each test uses the real one."""
