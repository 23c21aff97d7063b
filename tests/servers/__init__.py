"""Real servers on loopback sockets, which never import fastdl: independent witnesses of what it sends and accepts."""
