"""What decisions may know of LISP sites: places from the map system, delays from the access routers' probes."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import numpy as np
from numpy.typing import NDArray

from followme.config_lisp import LispConfig
from followme.controllers.lisp.places import Places
from followme.controllers.lisp.sites import Site
from followme.domain import NetworkKind
from followme.migration.mover import Result
