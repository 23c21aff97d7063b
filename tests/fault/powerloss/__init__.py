"""Power loss, replayed: what a disk may hold when the current goes in the middle of a run, and what is made of it.

``record`` runs the real command under strace and keeps every operation on its files, of all its processes, in order.
``disk`` says which of these a disk may have lost, torn or reordered at any point of that; ``states`` goes through the
possibilities, all of them where they are few, else by seed. ``replay`` puts each state on a real file system and lets
fastdl's own code say what it believes of it; ``scenarios`` are the runs, and ``campaign`` counts.

``python -m tests.fault.powerloss --states 1000000`` is the long form, ``tests/fault/test_powerloss.py`` the short one.
"""
