"""What must survive: nodes, placements, leases, locators, sagas and facts, in one SQLite file or in a bucket."""

from .records import Lease, MigrationStep, StoreError
from .replicated import ReplicatedStore
from .sqlite import Store

__all__ = ["Lease", "MigrationStep", "ReplicatedStore", "Store", "StoreError"]
