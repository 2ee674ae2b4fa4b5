"""python test.py -opt options/NAME_test.yml   (torchrun test.py ... for several processes)"""

import sys

from facerestore.engine.cli import test_main

if __name__ == "__main__":
    sys.exit(test_main())
