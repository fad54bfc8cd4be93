"""Step 1, mobility: who moved? Locations, the detector of moves, and DHCP as seen by the controller."""
