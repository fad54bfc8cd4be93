"""What must survive: nodes, placements, leases, locators and sagas, in one SQLite file."""

from .records import Lease, MigrationStep, StoreError
from .sqlite import Store

__all__ = ["Lease", "MigrationStep", "Store", "StoreError"]
