"""`python -m tests.crash.faulty_worker`: a worker with a fault (see fault.py). Its solo children have none."""

from tests.crash.fault import install

from agentos.worker.__main__ import main

if __name__ == "__main__":
    install()
    main()
