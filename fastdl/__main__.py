"""``python -m fastdl``."""

from fastdl.cli import main

if __name__ == "__main__":
    main()
