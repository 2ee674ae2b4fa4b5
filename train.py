"""python train.py -opt options/NAME.yml   (torchrun train.py ... for several processes)"""

import sys

from facerestore.engine.cli import train_main

if __name__ == "__main__":
    sys.exit(train_main())
